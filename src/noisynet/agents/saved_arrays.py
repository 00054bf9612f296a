"""Networks, optimizers, generators and draws as numpy arrays, which load without executing code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor, nn

from ..control import scale
from ..layers import Draw, held, hold, noisy_layers

_STATE_BYTES = {5056, 16}
"""Sizes of the state of torch's generators: on the CPU, and on CUDA devices."""


def optimizer_arrays(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, np.ndarray]:
    """Return each tensor of the optimizer's state as `prefix.<parameter number>.<name>`."""
    return {
        f"{prefix}.{number}.{name}": np.array(value.detach().cpu().numpy(), order="C")
        for number, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, arrays: Mapping[str, np.ndarray], prefix: str
) -> None:
    """Restore what `optimizer_arrays` returned; the optimizer keeps its own hyperparameters.

    Moments get the memory layout of their parameter: fused Adam reads both in the order of memory,
    and would otherwise pair channels-last weights with the moments of other weights. Raises
    RuntimeError for the state of another kind of optimizer, which would fail only at the next step.
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
    needed = _entries(optimizer)
    for kept in state.values():
        if not needed <= kept.keys():
            raise RuntimeError(
                f"optimizer: got {', '.join(sorted(kept))}, {type(optimizer).__name__} expected "
                f"{', '.join(sorted(needed))}"
            )
    current = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": current["param_groups"]})


def _entries(optimizer: torch.optim.Optimizer) -> set[str]:
    """Return the names of an optimizer's state for each parameter; empty for an unknown kind."""
    if isinstance(optimizer, torch.optim.Adam | torch.optim.RAdam):
        return {"step", "exp_avg", "exp_avg_sq"}
    if isinstance(optimizer, torch.optim.RMSprop):
        centred = any(group["centered"] for group in optimizer.param_groups)
        return {"step", "square_avg", *(["grad_avg"] if centred else [])}
    return set()


def network_arrays(network: nn.Module, prefix: str) -> dict[str, np.ndarray]:
    """Return each tensor of a network's state as `prefix.<name>`."""
    return {f"{prefix}.{name}": to_array(tensor) for name, tensor in network.state_dict().items()}


def load_network(network: nn.Module, arrays: Mapping[str, np.ndarray], prefix: str) -> None:
    """Load what `network_arrays` returned; raises RuntimeError if it does not fit."""
    own = f"{prefix}."
    network.load_state_dict(
        {
            name.removeprefix(own): torch.from_numpy(array)
            for name, array in arrays.items()
            if name.startswith(own)
        }
    )


def generator_to_array(generator: torch.Generator) -> np.ndarray:
    """Return a generator's state as bytes."""
    return generator.get_state().numpy()


def generator_from_array(generator: torch.Generator, array: np.ndarray) -> None:
    """Set a generator's state from bytes.

    The generators of a CPU and of a GPU compute differently, and neither can continue the sequence
    of the other: with the state of the other kind, the generator is seeded from that state.
    """
    if len(array) in _STATE_BYTES - {generator.get_state().numel()}:
        digest = blake2b(array.tobytes(), digest_size=8).digest()
        generator.manual_seed(int.from_bytes(digest, "little"))
    else:
        generator.set_state(torch.from_numpy(array.copy()))


def to_array(tensor: Tensor) -> np.ndarray:
    """Return a tensor's values as a contiguous array."""
    return np.ascontiguousarray(tensor.detach().cpu().numpy())


def held_draw_arrays(network: nn.Module) -> dict[str, np.ndarray]:
    """Return the draw that a network holds, as arrays."""
    return {f"noise.{number}": to_array(flat) for number, flat in enumerate(_held(network).flats)}


def restore_held_draw(network: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Hold the draw that `held_draw_arrays` returned, instead of the one that is held.

    Their numbers of rows may differ: a learner with samplers holds rows for all environments.
    """
    drawn = _held(network)
    flats = tuple(
        torch.from_numpy(arrays[f"noise.{number}"]).to(flat)
        for number, flat in enumerate(drawn.flats)
    )
    hold(network, drawn=replace(drawn, flats=flats))


def scale_arrays(network: nn.Module) -> dict[str, np.ndarray]:
    """Return the scale of a network's noise; empty if none was ever set."""
    states = [layer.noise_state for layer in noisy_layers(network).values()]
    if all(state.multiplier is None for state in states):
        return {}
    return {"noise.scale": np.array([scale(network)])}


def restore_scale(network: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Set the scale that `scale_arrays` returned, if it returned one."""
    saved = arrays.get("noise.scale")
    if saved is not None:
        scale(network, float(saved[0]))


def check_noise_kind(network: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise RuntimeError if the saved draw and the held one are of different kinds of noise.

    Both kinds have parameters of the same shapes, so the weights alone would load without an error.
    """
    for number, flat in enumerate(_held(network).flats):
        array = arrays.get(f"noise.{number}")
        if array is not None and array.shape[-1:] != flat.shape[-1:]:
            raise RuntimeError(
                f"noise: got a draw of {array.shape[-1]} numbers, expected {flat.shape[-1]}, as "
                "the config's kind of noise takes"
            )


def _held(network: nn.Module) -> Draw:
    drawn = held(network)
    assert drawn is not None, "an agent with learned noise holds its acting draw"
    return drawn
