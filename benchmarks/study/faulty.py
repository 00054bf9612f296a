"""Faults that noisy agents of other libraries have, each put into ours: a subclass of `QLearning`.

What can be had by the config's own fields is not here: see `faults.py`.
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
    """Let configs describe agents of a faulty kind inside; None: our own."""
    with mock.patch.object(noisynet.assemble.agents, "QLearning", kind or QLearning):
        yield


class _Never(LearnedNoise):
    def redraw(self) -> None:
        """Keep what is held."""


class FrozenNoise(QLearning):
    """Each network has one draw for the whole run, by which it acts, learns and chooses."""

    def __init__(self, *arguments: Any, environments: int, **options: Any) -> None:
        super().__init__(*arguments, environments=environments, **options)
        self.noise = _Never(
            self.online, environments, self._acting, redraw="episode", draw_per_environment=False
        )
        self._of_target = draw(self.target, generator=self._learning)

    def draws(self) -> Draws:
        """Return what was drawn at the beginning."""
        online = held(self.online)
        return online, self._of_target, online


class ActsWithoutNoise(QLearning):
    """The noise is off where the agent acts: it learns under noise, and plays greedily."""

    def greedy(self, observation: np.ndarray) -> np.ndarray:
        """Choose by the mean weights."""
        with mean_weights(self.network):
            return super().greedy(observation)


class LearnsWithoutNoise(QLearning):
    """The loss runs both networks by their mean weights: σ keeps its initial value."""

    def draws(self) -> Draws:
        """Draw nothing."""
        return None, None, None


class _TargetCopies(QLearning):
    """The target network has the online net's draw as it was when the weights were copied."""

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
    """ε is part of what is copied: ε′ is an old ε, and the same until the next copy."""

    def draws(self) -> Draws:
        """Draw ε and ε″."""
        online, _, choice = super().draws()
        assert online is not None, "an agent with noise"
        self._newest = online
        return online, self.copied, choice


class OneLayerAsOthersHaveIt(_TargetCopies):
    """A layer with ε in a buffer: one draw acts for all, is learned by, and chooses.

    It is redrawn after every update, and the target network has a copy of it, as `_TargetCopies`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "draw_per_environment": False})

    def _first(self) -> Draw:
        acting = held(self.online)
        assert acting is not None, "an agent with noise"
        return acting

    def draws(self) -> Draws:
        """Return what acted, twice, and what was copied."""
        self._newest = self._first()
        return self._newest, self.copied, self._newest


class BiasOverOutputs(QLearning):
    """The bias's σ is σ0/√q, q being the number of outputs."""

    def __init__(self, network: QNetwork, *arguments: Any, **options: Any) -> None:
        for layer in noisy_layers(network).values():
            layer.init = "torchrl"
            layer.reset_sigmas()
        super().__init__(network, *arguments, **options)


class FactorisedSigma(QLearning):
    """Layers of independent noise begin with the factorised layer's σ and μ."""

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
