"""Exploration as a part of an agent: learned noise, ε-greedy, or both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import nn

from ..layers import hold, resample
from .arguments import check_choice

Redraw = Literal["step", "update", "episode", "rollout"]
"""When the acting noise is redrawn; "rollout": after each rollout, over which it is held."""


@dataclass(frozen=True)
class LinearEpsilon:
    """An ε that falls linearly from `start` to `end` over `steps`, from step `begin` on.

    From step `until` on, if given, it is 0.
    """

    start: float
    end: float
    steps: int
    begin: int = 0
    until: int | None = None

    def __call__(self, step: int) -> float:
        """Return ε at an agent step."""
        if self.until is not None and step >= self.until:
            return 0.0
        done = min(max((step - self.begin) / self.steps, 0.0), 1.0)
        return self.start + (self.end - self.start) * done


class LearnedNoise:
    """The acting noise: a held draw, one for each environment or one for all, and its redraws.

    In the paper, noise is drawn after every optimisation step, and one such step precedes every
    action (arXiv 1706.10295, §3.1).
    """

    def __init__(
        self,
        network: nn.Module,
        environments: int,
        generator: torch.Generator,
        *,
        redraw: Redraw = "update",
        draw_per_environment: bool = True,
    ) -> None:
        """Hold a first draw; raise ValueError for an unknown `redraw`."""
        check_choice("redraw", redraw, get_args(Redraw))
        self._network = network
        self._generator = generator
        self._redraw = redraw
        self._per_environment = draw_per_environment
        hold(network, rows=environments if draw_per_environment else None, generator=generator)

    def before_action(self, first: np.ndarray, updates: int) -> None:
        """Redraw if it is due: at every step, or where an episode begins.

        `first` (N,) is true where an episode begins. Noise that is redrawn at every update is
        redrawn at every step until the first one, or a long warm-up would act under one draw.
        """
        if self._redraw == "step" or (self._redraw == "update" and updates == 0):
            self.redraw()
        elif self._redraw == "episode" and first.any():
            if self._per_environment:
                resample(self._network, where=first.tolist(), generator=self._generator)
            else:
                self.redraw()

    def after_update(self) -> None:
        """Redraw, if the noise is redrawn at every update."""
        if self._redraw == "update":
            self.redraw()

    def after_rollout(self) -> None:
        """Redraw, if the noise is held over rollouts."""
        if self._redraw == "rollout":
            self.redraw()

    def redraw(self) -> None:
        """Redraw the noise of every environment."""
        resample(self._network, generator=self._generator)


def epsilon_greedy(
    greedy: np.ndarray, actions: int, epsilon: float, generator: np.random.Generator
) -> np.ndarray:
    """Replace each greedy action, shape (N,), with probability ε by a uniformly random one."""
    random = generator.integers(actions, size=greedy.shape)
    return np.where(generator.random(greedy.shape) < epsilon, random, greedy)
