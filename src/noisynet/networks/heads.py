"""What turns features into Q-values: the layers that carry the noise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .torsos import Torso

MakeLinear = Callable[[int, int], nn.Module]
"""Builds the fully connected layers of a head: `nn.Linear`, or a noisy one with its options."""


class Stream(nn.Sequential):
    """Apply two fully connected layers with a ReLU between: (…, features) to (…, outputs).

    The second layer always computes in its weights' own precision, also under autocast: bfloat16
    keeps 8 bits, too few to tell apart actions whose values differ by less than a hundredth.
    """

    def __init__(self, features: int, hidden: int, outputs: int, linear: MakeLinear) -> None:
        """Build the two layers with `linear`."""
        super().__init__(linear(features, hidden), nn.ReLU(), linear(hidden, outputs))

    def forward(self, input: Tensor) -> Tensor:
        """Give outputs (…, outputs) in the precision of the weights."""
        first, activation, second = self
        hidden = activation(first(input))
        with torch.autocast(input.device.type, enabled=False):
            return second(hidden.to(next(second.parameters()).dtype))


class QHead(nn.Module):
    """Give one value per action from two fully connected layers: (…, features) to (…, actions)."""

    def __init__(self, features: int, hidden: int, actions: int, linear: MakeLinear) -> None:
        """Build the two layers with `linear`."""
        super().__init__()
        self.q = Stream(features, hidden, actions, linear)

    def forward(self, features: Tensor) -> Tensor:
        """Give Q-values (…, actions)."""
        return self.q(features)


class DuelingHead(nn.Module):
    """Give Q = V + A - mean A from a value and an advantage stream (arXiv 1511.06581, eq. 9).

    Shapes: (…, features) to (…, actions).
    """

    def __init__(self, features: int, hidden: int, actions: int, linear: MakeLinear) -> None:
        """Build two layers a stream with `linear`."""
        super().__init__()
        self.value = Stream(features, hidden, 1, linear)
        self.advantage = Stream(features, hidden, actions, linear)

    def forward(self, features: Tensor) -> Tensor:
        """Give Q-values (…, actions)."""
        advantage = self.advantage(features)
        return self.value(features) + advantage - advantage.mean(-1, keepdim=True)


class QNetwork(nn.Module):
    """Give Q-values for observations: a torso and a head."""

    def __init__(self, torso: Torso, head: nn.Module) -> None:
        """Join a torso and a head."""
        super().__init__()
        self.torso = torso
        self.head = head

    def forward(self, observation: Tensor) -> Tensor:
        """Give Q-values (…, actions) for observations (…, *observation shape)."""
        return self.head(self.torso(observation))
