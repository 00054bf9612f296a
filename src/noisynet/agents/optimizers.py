"""The parts of an update other than its loss: optimizer, step size, gradients and precision."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from .arguments import check_choice


class LossNotFinite(ArithmeticError):
    """A loss, its gradient or a policy that became NaN or infinite."""


@dataclass(frozen=True)
class StepSize:
    """The optimizer's step size: constant, or falling linearly from `start` to `end`."""

    start: float
    end: float | None = None
    steps: int = 1
    """Steps over which it falls; what counts as a step is the caller's choice."""

    def __call__(self, step: int) -> float:
        """Return the step size at a step."""
        if self.end is None:
            return self.start
        return self.start + min(step / self.steps, 1.0) * (self.end - self.start)


def adam(
    parameters: Iterable[nn.Parameter], *, learning_rate: float = 1e-4, epsilon: float = 1e-8
) -> torch.optim.Adam:
    """Build a fused Adam optimizer."""
    return torch.optim.Adam(parameters, lr=learning_rate, eps=epsilon, fused=True)


def set_step_size(optimizer: torch.optim.Optimizer, size: float) -> None:
    """Set the optimizer's step size."""
    for group in optimizer.param_groups:
        group["lr"] = size


def backward_and_clip(
    loss: Tensor, optimizer: torch.optim.Optimizer, *, max_norm: float | None, update: int
) -> float:
    """Compute the loss's gradient in the optimizer's parameters, and clip it to `max_norm`.

    Returns the loss. Raises LossNotFinite, naming the update, if either is NaN or infinite.
    """
    value = float(loss.detach())
    if not math.isfinite(value):
        raise LossNotFinite(f"the loss became {value} at update {update}")
    # Written out, this takes a third of the time of zero_grad, clip_grad_norm_ and a walk over the
    # network's modules, which would be a twentieth of a small network's update.
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    for parameter in parameters:
        parameter.grad = None
    loss.backward()
    gradients = [one.grad for one in parameters if one.grad is not None]
    norm = vector_norm(torch.stack([vector_norm(one) for one in gradients]))
    length = float(norm)
    if not math.isfinite(length):
        raise LossNotFinite(f"the loss's gradient became {length} at update {update}")
    if max_norm is not None and length > max_norm:
        scale = max_norm / (norm + 1e-6)
        for gradient in gradients:
            gradient.mul_(scale)
    return value


def is_finite(network: nn.Module) -> bool:
    """Return whether all parameters are finite."""
    with torch.no_grad():
        return all(bool(one.isfinite().all()) for one in network.parameters())


def autocast_for(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Compute products inside in bfloat16 or float32; raise ValueError for another precision."""
    check_choice("precision", precision, ("float32", "bfloat16"))
    if precision == "bfloat16":
        # Before https://github.com/pytorch/pytorch/pull/165068, a weight that was first used under
        # no_grad stayed cached without history, and got no gradient from its later uses.
        return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)
    return nullcontext()
