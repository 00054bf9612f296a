"""Networks of Q-values: a torso, and a head whose layers carry the noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .noise_settings import MakeLinear, NoiseSettings, head_layers, make_torso_noisy
from .torsos import Torso, make_torso


class Stream(nn.Sequential):
    """Two fully connected layers with a ReLU between: (…, features) to (…, outputs).

    With `layer_norm` the hidden layer is normalised before the ReLU, without gain and bias.

    The second layer always computes in its weights' own precision, also under autocast: bfloat16
    keeps 8 bits, too few to tell apart actions whose values differ by less than a hundredth.
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
"""Builds a stream of so many outputs, as `partial(Stream, features, hidden, linear=…)` does."""


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
    """Each action's value as probabilities of fixed atoms (C51, arXiv 1707.06887, §4).

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


class QNetwork(nn.Module):
    """A torso and a head: observations to Q-values."""

    def __init__(self, torso: Torso, head: QHead | DuelingHead | DistributionalHead) -> None:
        """Join a torso and a head of as many features."""
        super().__init__()
        self.torso = torso
        self.head = head

    def forward(self, observation: Tensor) -> Tensor:
        """Return Q-values (…, actions) for observations (…, *observation shape)."""
        return self.head(self.torso(observation))

    def output_layers(self) -> list[nn.Module]:
        """Return the last layer of each stream of the head."""
        return [part[-1] for part in self.head.modules() if isinstance(part, Stream)]

    def logits(self, observation: Tensor) -> Tensor:
        """Return logits (…, actions, atoms); only a distributional head has them."""
        assert isinstance(self.head, DistributionalHead), "the head gives expected values alone"
        return self.head.logits(self.torso(observation))


def build_q_network(
    observation_shape: Sequence[int],
    actions: int,
    *,
    torso: str = "auto",
    torso_hidden: Sequence[int] = (),
    head_hidden: int = 512,
    dueling: bool = False,
    support: Tensor | None = None,
    noise: NoiseSettings | None = None,
    standardise_frames: bool = False,
    layer_norm: bool = False,
) -> QNetwork:
    """Build a Q-network, its initial values drawn from torch's default generator.

    Args:
        observation_shape: of one observation: (size,) for vectors, (stack, height, width) or
            (channels, height, width) for images.
        actions: number of actions.
        torso: name of the torso; see `make_torso`.
        torso_hidden: sizes of the hidden layers of the "mlp" torso, which are plain.
        head_hidden: size of the head's hidden layer, or of each stream's.
        dueling: a value and an advantage stream (arXiv 1511.06581).
        support: values of the atoms (atoms,), in the unit of returns; None for expected values
            alone. For C51: `torch.linspace(-10, 10, 51)` (arXiv 1707.06887).
        noise: which layers are noisy, and how; None for a plain network.
        standardise_frames: whether the torso standardises frames; see `FramesTorso`.
        layer_norm: whether every layer but the last is normalised before its ReLU
            (arXiv 2407.04811).

    Raises:
        ValueError: a torso of that name does not exist, or does not fit the observations.
    """
    body = make_torso(
        torso,
        observation_shape,
        torso_hidden,
        standardise_frames=standardise_frames,
        layer_norm=layer_norm,
    )
    linear, hidden_linear = head_layers(noise)

    def stream(outputs: int) -> Stream:
        return Stream(
            body.features, head_hidden, outputs, linear, hidden_linear, layer_norm=layer_norm
        )

    if support is not None:
        head = DistributionalHead(stream, actions, support=support, dueling=dueling)
    else:
        head = (DuelingHead if dueling else QHead)(stream, actions)
    make_torso_noisy(body, noise)
    return QNetwork(body, head)
