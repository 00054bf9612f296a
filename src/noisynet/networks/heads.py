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

    def __init__(
        self,
        features: int,
        hidden: int,
        outputs: int,
        linear: MakeLinear,
        hidden_linear: MakeLinear | None = None,
    ) -> None:
        """Build the last layer with `linear`, the first one with `hidden_linear` if it is given."""
        super().__init__(
            (hidden_linear or linear)(features, hidden), nn.ReLU(), linear(hidden, outputs)
        )

    def forward(self, input: Tensor) -> Tensor:
        """Give outputs (…, outputs) in the precision of the weights."""
        first, activation, second = self
        hidden = activation(first(input))
        with torch.autocast(input.device.type, enabled=False):
            return second(hidden.to(next(second.parameters()).dtype))


class QHead(nn.Module):
    """Give one value per action from two fully connected layers: (…, features) to (…, actions)."""

    def __init__(
        self,
        features: int,
        hidden: int,
        actions: int,
        linear: MakeLinear,
        hidden_linear: MakeLinear | None = None,
    ) -> None:
        """Build the two layers as `Stream` does."""
        super().__init__()
        self.q = Stream(features, hidden, actions, linear, hidden_linear)

    def forward(self, features: Tensor) -> Tensor:
        """Give Q-values (…, actions)."""
        return self.q(features)


class DuelingHead(nn.Module):
    """Give Q = V + A - mean A from a value and an advantage stream (arXiv 1511.06581, eq. 9).

    Shapes: (…, features) to (…, actions).
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        actions: int,
        linear: MakeLinear,
        hidden_linear: MakeLinear | None = None,
    ) -> None:
        """Build two layers a stream, as `Stream` does."""
        super().__init__()
        self.value = Stream(features, hidden, 1, linear, hidden_linear)
        self.advantage = Stream(features, hidden, actions, linear, hidden_linear)

    def forward(self, features: Tensor) -> Tensor:
        """Give Q-values (…, actions)."""
        advantage = self.advantage(features)
        return self.value(features) + advantage - advantage.mean(-1, keepdim=True)


class DistributionalHead(nn.Module):
    """Give each action's value as probabilities of fixed atoms (C51, arXiv 1707.06887, §4).

    With `dueling`, the logits are v + a - mean a, atom by atom (Rainbow, arXiv 1710.02298, §3).
    """

    support: Tensor

    def __init__(
        self,
        features: int,
        hidden: int,
        actions: int,
        linear: MakeLinear,
        hidden_linear: MakeLinear | None = None,
        *,
        support: Tensor,
        dueling: bool,
    ) -> None:
        """Build two layers, or two a stream; `support` (atoms,) holds the atoms' values."""
        super().__init__()
        self.register_buffer("support", support, persistent=False)
        self.actions = actions
        atoms = len(support)
        self.advantage = Stream(features, hidden, actions * atoms, linear, hidden_linear)
        self.value = Stream(features, hidden, atoms, linear, hidden_linear) if dueling else None

    def logits(self, features: Tensor) -> Tensor:
        """Give the logits (…, actions, atoms)."""
        advantage = self.advantage(features).unflatten(-1, (self.actions, -1))
        if self.value is None:
            return advantage
        value = self.value(features).unsqueeze(-2)
        return value + advantage - advantage.mean(-2, keepdim=True)

    def forward(self, features: Tensor) -> Tensor:
        """Give Q-values (…, actions): the means of the distributions."""
        return self.mean(self.logits(features).softmax(-1))

    def mean(self, probabilities: Tensor) -> Tensor:
        """Give the mean of distributions (…, atoms), in full precision."""
        return (probabilities.float() * self.support).sum(-1)


class ActorCriticHead(nn.Module):
    """Give policy logits and a value: (…, features) to (…, actions) and (…).

    With noise both are noisy, as all fully connected layers of NoisyNet-A3C (arXiv 1706.10295,
    §3.1). Both compute in their weights' own precision, as the last layer of a `Stream` does.
    """

    def __init__(self, features: int, actions: int, linear: MakeLinear) -> None:
        """Build one layer each."""
        super().__init__()
        self.policy = linear(features, actions)
        self.value = linear(features, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Give logits (…, actions) and values (…)."""
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(next(self.policy.parameters()).dtype)
            return self.policy(features), self.value(features).squeeze(-1)


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

    def logits(self, observation: Tensor) -> Tensor:
        """Give logits (…, actions, atoms); only a distributional head has them."""
        assert isinstance(self.head, DistributionalHead), "the head gives expected values alone"
        return self.head.logits(self.torso(observation))
