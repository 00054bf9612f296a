"""RMSProp in one pass over memory, for A2C, whose optimizer has σ beside each mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import RMSprop

_torch: Any = torch
"""torch, untyped: its operations on lists of tensors have no public names."""

ParameterState = tuple[Tensor, Tensor, Tensor]
"""A parameter, its gradient and the running mean of its squares; or a block of each."""

_BLOCK = 1 << 16
"""Values that are updated together, 256 KiB of each of four arrays.

With fewer, the calls take longer: a step on 3.4 M parameters took 5.5 ms with 1 << 14, and 3.7 ms
with this (one core of an AMD EPYC).
"""


class BlockedRMSprop(RMSprop):
    """`torch.optim.RMSprop` without momentum, with the same steps bit for bit.

    Torch has no fused RMSProp: each of its five operations passes over all parameters. On the CPU,
    this one applies all five to a block of values before it goes on to the next.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step, after evaluating the closure if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            found = [
                (one, one.grad, self._squares_of(one))
                for one in group["params"]
                if one.grad is not None
            ]
            for together in _in_blocks(found):
                _update(together, group)
        return loss

    def _squares_of(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["square_avg"] = torch.zeros_like(parameter)
        state["step"] += 1
        return state["square_avg"]


def supports(options: Mapping[str, Any]) -> bool:
    """Return whether `BlockedRMSprop` supports these options of `torch.optim.RMSprop`."""
    return options.keys() <= {"alpha", "eps", "weight_decay"}


def _in_blocks(found: Sequence[ParameterState]) -> list[list[ParameterState]]:
    """List what is updated together: all small tensors, and each block of a large one."""
    small: list[ParameterState] = []
    blocks: list[list[ParameterState]] = []
    for three in found:
        is_split = three[0].device.type == "cpu" and three[0].numel() > _BLOCK
        if is_split and all(one.is_contiguous() for one in three):
            parts = zip(*(one.view(-1).split(_BLOCK) for one in three), strict=True)
            blocks += [[part] for part in parts]
        else:
            small.append(three)
    return [small, *blocks] if small else blocks


def _update(together: Sequence[ParameterState], group: Mapping[str, Any]) -> None:
    values, slopes, squares = (list(tensors) for tensors in zip(*together, strict=True))
    alpha, decay = group["alpha"], group["weight_decay"]
    if decay:
        slopes = _torch._foreach_add(slopes, values, alpha=decay)
    _torch._foreach_mul_(squares, alpha)
    _torch._foreach_addcmul_(squares, slopes, slopes, value=1 - alpha)
    roots = _torch._foreach_sqrt(squares)
    _torch._foreach_add_(roots, group["eps"])
    _torch._foreach_addcdiv_(values, slopes, roots, value=-group["lr"])
