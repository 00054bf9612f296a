"""The optimizer that a config describes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from ..runs.sections import LearningSection


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
