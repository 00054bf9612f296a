"""Exploration as a part of an agent: learned noise, ε-greedy, or both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from ..layers import NoisyLinear, hold, resample
from ..runs.sections import ExplorationSection


@dataclass(frozen=True)
class LinearEpsilon:
    """Let ε fall linearly from `start` to `end` over `steps`, from step `begin` on."""

    start: float
    end: float
    steps: int
    begin: int

    def __call__(self, step: int) -> float:
        """Give ε at an agent step."""
        done = min(max((step - self.begin) / self.steps, 0.0), 1.0)
        return self.start + (self.end - self.start) * done


class LearnedNoise:
    """Act with a draw held for each environment, redrawn after every update.

    In the paper noise is drawn after every optimisation step, which there comes before every
    action (arXiv 1706.10295, §3.1). Before the first update the agent redraws at every action.
    """

    def __init__(self, network: nn.Module, rows: int, generator: torch.Generator) -> None:
        """Draw for the first time, one draw per environment."""
        self._network = network
        self._generator = generator
        hold(network, rows=rows, generator=generator)

    def redraw(self) -> None:
        """Draw anew for every environment."""
        resample(self._network, generator=self._generator)


def epsilon_greedy(
    greedy: np.ndarray, actions: int, epsilon: float, generator: np.random.Generator
) -> np.ndarray:
    """Replace each greedy action, shape (N,), with probability ε by a uniformly random one."""
    random = generator.integers(actions, size=greedy.shape)
    return np.where(generator.random(greedy.shape) < epsilon, random, greedy)


def head_linear(section: ExplorationSection) -> Callable[[int, int], nn.Module]:
    """Give what builds the head's layers: noisy ones, or plain ones without learned noise."""
    if section.has_noise:
        return partial(NoisyLinear, noise=section.noise, sigma0=section.sigma0)
    return nn.Linear
