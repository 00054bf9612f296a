"""Optimizers and generators as flat numpy arrays, for checkpoints that execute no code."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch


def optimizer_arrays(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, np.ndarray]:
    """Give each tensor of the optimizer's state as `prefix.<parameter number>.<name>`."""
    return {
        f"{prefix}.{number}.{name}": np.array(value.detach().cpu().numpy(), order="C")
        for number, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, arrays: Mapping[str, np.ndarray], prefix: str
) -> None:
    """Take over what `optimizer_arrays` gave; hyperparameters stay those of the optimizer.

    Moments get the memory layout of their parameter: fused Adam walks both side by side in memory,
    and channels-last weights would otherwise meet the moments of other weights.
    """
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, array in arrays.items():
        if name.startswith(f"{prefix}."):
            _, number, entry = name.split(".")
            value = torch.from_numpy(array.copy())
            parameter = parameters[int(number)]
            if value.shape == parameter.shape:
                value = torch.empty_like(parameter, device="cpu").copy_(value)
            state.setdefault(int(number), {})[entry] = value
    current = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": current["param_groups"]})


def generator_to_array(generator: torch.Generator) -> np.ndarray:
    """Give a generator's state as bytes."""
    return generator.get_state().numpy()


def generator_from_array(generator: torch.Generator, array: np.ndarray) -> None:
    """Set a generator's state from bytes."""
    generator.set_state(torch.from_numpy(array.copy()))
