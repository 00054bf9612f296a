"""Faults of other libraries' noisy agents, each reproduced as a subclass of our `QLearning`.

Faults that fields of the config can reproduce are in `faults.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch

import noisynet.assemble.agents
from noisynet.agents import QLearning
from noisynet.agents.exploration import LearnedNoise
from noisynet.agents.q_learning import Draws
from noisynet.layers import Draw, draw, held, mean_weights, noisy_layers
from noisynet.networks import QNetwork


@contextmanager
def agents_of(kind: type[QLearning] | None) -> Iterator[None]:
    """Make configs build agents of a faulty class within the context; None: our own class."""
    with mock.patch.object(noisynet.assemble.agents, "QLearning", kind or QLearning):
        yield


class _Never(LearnedNoise):
    def redraw(self) -> None:
        """Do nothing: the held draw stays."""


class FrozenNoise(QLearning):
    """An agent whose networks have one draw each for the whole run: to act, learn and choose."""

    def __init__(self, *arguments: Any, environments: int, **options: Any) -> None:
        super().__init__(*arguments, environments=environments, **options)
        self.noise = _Never(
            self.online, environments, self._acting, redraw="episode", draw_per_environment=False
        )
        self._of_target = draw(self.target, generator=self._learning)

    def draws(self) -> Draws:
        """Return the draws that were made at the beginning."""
        online = held(self.online)
        return online, self._of_target, online


class ActsWithoutNoise(QLearning):
    """An agent that learns under noise, but acts greedily by the mean weights."""

    def greedy(self, observation: np.ndarray) -> np.ndarray:
        """Choose by the mean weights."""
        with mean_weights(self.network):
            return super().greedy(observation)


class LearnsWithoutNoise(QLearning):
    """An agent whose loss uses the mean weights of both networks: σ keeps its initial value."""

    def draws(self) -> Draws:
        """Return None for each network: no noise."""
        return None, None, None


class _TargetCopies(QLearning):
    """An agent whose target network has the draw that the online network had at the last copy."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._newest = self.copied = self._first()

    def _first(self) -> Draw:
        return draw(self.online, generator=self._learning)

    def copy_to_target(self) -> None:
        super().copy_to_target()
        self.copied = self._newest

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays, plain = super().state()
        for name, one in (("newest", self._newest), ("copied", self.copied)):
            arrays |= {f"faulty.{name}.{n}": flat.numpy() for n, flat in enumerate(one.flats)}
        return arrays, plain

    def restore(self, arrays: Mapping[str, np.ndarray], plain: Mapping[str, Any]) -> None:
        super().restore(arrays, plain)
        self._newest, self.copied = (self._kept(arrays, name) for name in ("newest", "copied"))

    def _kept(self, arrays: Mapping[str, np.ndarray], name: str) -> Draw:
        flats = [
            torch.from_numpy(arrays[f"faulty.{name}.{number}"].copy())
            for number in range(len(self._newest.flats))
        ]
        return replace(self._newest, flats=tuple(flats))


class TargetCopiesDraw(_TargetCopies):
    """An agent that copies ε with the weights: ε′ is an old ε, the same until the next copy."""

    def draws(self) -> Draws:
        """Draw ε and ε″; ε′ is the ε of the last copy."""
        online, _, choice = super().draws()
        assert online is not None, "an agent with noise"
        self._newest = online
        return online, self.copied, choice


class OneLayerAsOthersHaveIt(_TargetCopies):
    """An agent whose layers keep ε in a buffer: one draw acts everywhere, learns and chooses.

    It is redrawn after every update, and the target network has a copy of it, as in
    `_TargetCopies`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "draw_per_environment": False})

    def _first(self) -> Draw:
        acting = held(self.online)
        assert acting is not None, "an agent with noise"
        return acting

    def draws(self) -> Draws:
        """Return the acting draw, for the loss and for the choice, and the copied draw as ε′."""
        self._newest = self._first()
        return self._newest, self.copied, self._newest


class BiasOverOutputs(QLearning):
    """An agent whose biases have σ0/√q as their σ, where q is the number of outputs."""

    def __init__(self, network: QNetwork, *arguments: Any, **options: Any) -> None:
        for layer in noisy_layers(network).values():
            layer.init = "torchrl"
            layer.reset_sigmas()
        super().__init__(network, *arguments, **options)


class FactorisedSigma(QLearning):
    """An agent whose layers of independent noise begin with the σ and μ of factorised layers."""

    def __init__(self, network: QNetwork, *arguments: Any, **options: Any) -> None:
        with torch.no_grad():
            for layer in noisy_layers(network).values():
                inputs = layer.noise_spec().parts[0].inputs
                for mean in layer.means()[0]:
                    if mean is not None:
                        mean.div_(3**0.5)  # from U[−√(3/p), √(3/p)] to U[−1/√p, 1/√p]
                for sigma in layer.sigmas()[0]:
                    if sigma is not None:
                        sigma.fill_(0.5 / inputs**0.5)
        super().__init__(network, *arguments, **options)
