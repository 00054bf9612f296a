"""An optimizer's state for reinitialised weights, reset so that nothing of the old weights remains.

A mean of gradients is set to 0. A mean of their squares, and Rprop's step size, are set to their
average over the weights of the same tensor that stay. A 0 would be taken for a mean over a long
history: Adam counts steps per tensor, so its correction for a short history is over, and the new
weights would take steps of up to 6.6 times the learning rate for some hundred updates, which is how
units die. If no weight of a tensor stays, its step count is reset as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_SIZES = (
    "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "square_avg", "sum", "acc_delta", "step_size",
)  # fmt: skip
"""Names of entries in the state of torch's optimizers that a step is divided by or scaled with."""
_BEGIN_WITH_ZEROS = (
    torch.optim.Adam, torch.optim.RAdam, torch.optim.RMSprop, torch.optim.Adagrad,
)  # fmt: skip
"""Optimizers whose state is reset in place, where a CUDA graph reads it; others build a new one."""


def check_knows(
    optimizers: Sequence[Optimizer], parameters: Iterable[tuple[str, nn.Parameter]]
) -> None:
    """Raise an error unless the optimizers together have all parameters, given with their names.

    Raises ValueError for a parameter that none of them has or whose state has another shape than
    the parameter.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    known = {id(one) for group in groups for one in group["params"]}
    count = "one" if len(optimizers) == 1 else len(optimizers)
    for name, parameter in parameters:
        if id(parameter) not in known:
            raise ValueError(
                f"optimizer: got {count} without {name!r}, expected every parameter that changes: "
                "build from net.parameters(), after noisify"
            )
        for optimizer in optimizers:
            for entry, value in _state(optimizer, parameter).items():
                if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                    raise ValueError(
                        f"optimizer: got {type(optimizer).__name__}, which keeps {entry!r} of "
                        f"{name!r} in another shape, expected one that keeps a number for each "
                        "weight"
                    )


def forget(optimizer: Optimizer, parameter: nn.Parameter) -> None:
    """Reset the optimizer's state of a parameter, as if the parameter were new."""
    if isinstance(optimizer, _BEGIN_WITH_ZEROS):
        for entry, value in _state(optimizer, parameter).items():
            if isinstance(value, Tensor):
                # Adagrad may begin its sum with a number other than 0.
                first = optimizer.defaults.get("initial_accumulator_value", 0.0)
                value.fill_(first if entry == "sum" else 0.0)
    else:
        optimizer.state.pop(parameter, None)


def forget_part(optimizer: Optimizer, parameter: nn.Parameter, dim: int, index: Tensor) -> None:
    """Reset the optimizer's state of a part of a parameter: `index` along dimension `dim`."""
    state = _state(optimizer, parameter)
    stays = torch.ones(parameter.shape[dim], dtype=torch.bool, device=index.device)
    stays[index] = False
    if not bool(stays.any()):
        forget(optimizer, parameter)
        return
    for entry, value in state.items():
        if not isinstance(value, Tensor) or not value.ndim:
            continue
        if entry in _SIZES:
            others = value.index_select(dim, stays.nonzero().squeeze(1))
            value.index_fill_(dim, index, others.mean())
        else:
            value.index_fill_(dim, index, 0)


def _state(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, Any]:
    # Not `state[…]`, which would make an entry for a parameter that has not been stepped.
    return optimizer.state.get(parameter, {})
