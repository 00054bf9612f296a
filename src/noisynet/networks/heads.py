"""Heads of Q-networks, whose layers carry the noise: from features to the values of actions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .noise_settings import MakeLinear


class Stream(nn.Sequential):
    """Two fully connected layers with a ReLU between them: (…, features) to (…, outputs).

    With `layer_norm` the hidden layer is normalised before the ReLU, without gain and bias.

    The second layer always computes in the precision of its weights, also under autocast: bfloat16
    has 8 bits, too few to tell apart actions whose values differ by less than a hundredth.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        outputs: int,
        linear: MakeLinear = nn.Linear,
        hidden_linear: MakeLinear | None = None,
        *,
        layer_norm: bool = False,
    ) -> None:
        """Build the last layer with `linear`, the first one with `hidden_linear` if it is given."""
        norm = [nn.LayerNorm(hidden, elementwise_affine=False)] if layer_norm else []
        super().__init__(
            (hidden_linear or linear)(features, hidden), *norm, nn.ReLU(), linear(hidden, outputs)
        )

    def forward(self, input: Tensor) -> Tensor:
        """Return outputs (…, outputs) in the precision of the weights."""
        *before, second = self
        hidden = input
        for one in before:
            hidden = one(hidden)
        with torch.autocast(input.device.type, enabled=False):
            return second(hidden.to(next(second.parameters()).dtype))


MakeStream = Callable[[int], Stream]
"""Builds a stream from its number of outputs: `partial(Stream, features, hidden, linear=…)`."""


class QHead(nn.Module):
    """One value per action from two fully connected layers: (…, features) to (…, actions)."""

    def __init__(self, stream: MakeStream, actions: int) -> None:
        """Build the stream."""
        super().__init__()
        self.q = stream(actions)

    def forward(self, features: Tensor) -> Tensor:
        """Return Q-values (…, actions)."""
        return self.q(features)


class DuelingHead(nn.Module):
    """Q = V + A - mean A from a value and an advantage stream (arXiv 1511.06581, eq. 9).

    Shapes: (…, features) to (…, actions).
    """

    def __init__(self, stream: MakeStream, actions: int) -> None:
        """Build the streams."""
        super().__init__()
        self.value = stream(1)
        self.advantage = stream(actions)

    def forward(self, features: Tensor) -> Tensor:
        """Return Q-values (…, actions)."""
        advantage = self.advantage(features)
        return self.value(features) + advantage - advantage.mean(-1, keepdim=True)


class DistributionalHead(nn.Module):
    """Each action's return as a distribution over fixed atoms (C51, arXiv 1707.06887, §4).

    With `dueling`, the logits are v + a - mean a, atom by atom (Rainbow, arXiv 1710.02298, §3).
    """

    support: Tensor

    def __init__(
        self, stream: MakeStream, actions: int, *, support: Tensor, dueling: bool = False
    ) -> None:
        """Build one stream, or two; `support` (atoms,) holds the atoms' values."""
        super().__init__()
        self.register_buffer("support", support, persistent=False)
        self.actions = actions
        atoms = len(support)
        self.advantage = stream(actions * atoms)
        self.value = stream(atoms) if dueling else None

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits (…, actions, atoms)."""
        advantage = self.advantage(features).unflatten(-1, (self.actions, -1))
        if self.value is None:
            return advantage
        value = self.value(features).unsqueeze(-2)
        return value + advantage - advantage.mean(-2, keepdim=True)

    def forward(self, features: Tensor) -> Tensor:
        """Return Q-values (…, actions): the means of the distributions."""
        return self.mean(self.logits(features).softmax(-1))

    def mean(self, probabilities: Tensor) -> Tensor:
        """Return the mean of distributions (…, atoms), in full precision."""
        return (probabilities.float() * self.support).sum(-1)
