"""The optimizer that a config describes, its step size and the gradient that it follows."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..runs.sections import LearningSection


class LossNotFinite(ArithmeticError):
    """Say that a loss became NaN or infinite."""


def build_optimizer(
    parameters: Iterable[nn.Parameter], learning: LearningSection
) -> torch.optim.Optimizer:
    """Build Adam, or the RMSProp of Mnih et al. 2015 without momentum."""
    if learning.optimizer == "adam":
        return torch.optim.Adam(
            parameters, lr=learning.learning_rate, eps=learning.adam_epsilon, fused=True
        )
    return torch.optim.RMSprop(
        parameters,
        lr=learning.learning_rate,
        alpha=learning.rmsprop_decay,
        eps=learning.rmsprop_epsilon,
        centered=learning.rmsprop_centred,
    )


def step_size(learning: LearningSection, done: float) -> float:
    """Give the step size when a share of the run is done: constant, or falling linearly."""
    if learning.final_learning_rate is None:
        return learning.learning_rate
    change = learning.final_learning_rate - learning.learning_rate
    return learning.learning_rate + min(done, 1.0) * change


def set_step_size(optimizer: torch.optim.Optimizer, size: float) -> None:
    """Let the next step have this size."""
    for group in optimizer.param_groups:
        group["lr"] = size


def leave_gradient(
    loss: Tensor,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    max_norm: float | None,
    update: int,
) -> float:
    """Leave the loss's gradient, no longer than allowed, in the parameters; gives the loss.

    Raises LossNotFinite, naming the update, where either is NaN or infinite.
    """
    value = float(loss.detach())
    if not math.isfinite(value):
        raise LossNotFinite(f"the loss became {value} at update {update}")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    limit = math.inf if max_norm is None else max_norm
    norm = float(nn.utils.clip_grad_norm_(network.parameters(), limit, foreach=True))
    if not math.isfinite(norm):
        raise LossNotFinite(f"the loss's gradient became {norm} at update {update}")
    return value
