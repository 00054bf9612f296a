"""A rollout that is being learned from: its targets, and the order of its minibatches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..layers import Draw
from .revival import ROWS
from .rollout import Rollout


@dataclass
class PreparedRollout:
    """A rollout that is being learned from."""

    rollout: Rollout
    drawn: Draw | None
    """The draw that acted in it."""
    target_t: Tensor
    """(T, N)."""
    prepared: Tensor
    """(T + 1, N, …): the observations as the torso takes them."""
    order: np.ndarray
    """Numbers of the steps that each epoch learns, shuffled: (epochs, steps)."""
    minibatches: int
    """In an epoch: fewer than asked for where fewer steps were taken."""
    done: int = 0
    """Minibatches that have been learned."""

    @property
    def left(self) -> int:
        """Minibatches that are left to learn."""
        return len(self.order) * self.minibatches - self.done

    def observations(self) -> np.ndarray:
        """Return some observations of the rollout's steps, (at most 256, …), in random order."""
        observation = self.rollout.observation
        steps, environments = np.divmod(self.order[0, :ROWS], observation.shape[1])
        return observation[steps, environments]

    def minibatch(self) -> np.ndarray:
        """Return the numbers of the next minibatch's steps; sizes differ by one at the most."""
        return self._minibatch(self.done)

    def every_minibatch(self) -> Iterator[np.ndarray]:
        """Yield the numbers of each minibatch's steps, those that have been learned too."""
        for number in range(len(self.order) * self.minibatches):
            yield self._minibatch(number)

    def _minibatch(self, number: int) -> np.ndarray:
        epoch, number = divmod(number, self.minibatches)
        size, larger = divmod(self.order.shape[1], self.minibatches)
        start = number * size + min(number, larger)
        return self.order[epoch, start : start + size + (number < larger)]


@dataclass(frozen=True)
class Minibatch:
    """Steps of a rollout, on the device, to learn from."""

    observation: Tensor
    """(B, …): as the torso takes it."""
    action: Tensor
    """(B,)."""
    target: Tensor
    """(B,)."""
    acted: Draw | None
    """The draw that acted in each step; None: its own is drawn, or no layer is noisy."""
    weight: Tensor | None = None
    """(B,): of each step in the mean, their sum 1; None: all weigh the same."""

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of values of its steps, (B,)."""
        return values.mean() if self.weight is None else values @ self.weight
