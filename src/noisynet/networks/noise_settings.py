"""Which layers of a network are noisy, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn

from ..layers import NoiseName, NoisyLinear, noisify
from ..layers.initial import NoiseOptions

MakeLinear = Callable[[int, int], nn.Module]
"""Builds a fully connected layer from its sizes: `nn.Linear`, or a noisy one with its options."""

_PLACES = ("last", "head", "all")


@dataclass(frozen=True, kw_only=True)
class NoiseSettings:
    """Which layers of a network are noisy, and how. Raises ValueError for an unknown `where`."""

    kind: NoiseName = "factorised"
    """How ε is drawn (arXiv 1706.10295, §3)."""
    sigma0: float | None = None
    """σ₀ of the initial σ; None for the paper's value: 0.5, or 0.017 for independent noise."""
    learned: bool = True
    """Whether σ is learned; otherwise it keeps its initial value."""
    where: Literal["last", "head", "all"] = "head"
    """`last`: the output layers. `head`: all layers of the head except an embedding of τ. `all`:
    the embedding, the torso and an LSTM as well."""

    def __post_init__(self) -> None:
        if self.where not in _PLACES:
            raise ValueError(f"where: got {self.where!r}, expected one of {', '.join(_PLACES)}")

    @property
    def options(self) -> NoiseOptions:
        """The options of each noisy layer."""
        return {"noise": self.kind, "sigma0": self.sigma0, "learned": self.learned}


def head_layers(noise: NoiseSettings | None) -> tuple[MakeLinear, MakeLinear]:
    """Return a function that builds a head's last layers, and one for its hidden layers."""
    if noise is None:
        return nn.Linear, nn.Linear
    noisy = partial(NoisyLinear, **noise.options)
    return noisy, (nn.Linear if noise.where == "last" else noisy)


def embedding_layer(noise: NoiseSettings | None) -> MakeLinear:
    """Return a function that builds the embedding of τ in a `QuantileHead`."""
    if noise is None or noise.where != "all":
        return nn.Linear
    return head_layers(noise)[0]


def make_torso_noisy(torso: nn.Module, noise: NoiseSettings | None) -> None:
    """Make every layer of a torso noisy if `noise.where` is "all"; skip one without parameters."""
    if noise is not None and noise.where == "all" and any(True for _ in torso.parameters()):
        noisify(torso, lambda *_: True, **noise.options)
