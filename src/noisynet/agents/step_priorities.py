"""Which steps of a rollout its minibatches prefer: those whose values are the furthest off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StepPriorities:
    """Priorities by the error, as those of a prioritised replay (arXiv 1511.05952, §3.3).

    There is no importance weight: a rollout is learned a few times and then gone, and what it
    prefers are returns that were seen, not estimates that may be wrong for long.
    """

    exponent: float
    """α: 0 prefers none, 1 learns steps in proportion to their error."""
    epsilon: float
    """Added to every error, in the unit of returns, so that no step is left out for good."""

    def __call__(self, error: np.ndarray) -> np.ndarray:
        """Return (|error| + ε)^α, in any shape; the error of a step is G_t - V_t."""
        return (np.abs(error) + self.epsilon) ** self.exponent


def systematic_sample(priority: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw as many numbers as there are priorities, each in proportion to its own: (n,) to (n,).

    One random number places a comb of n evenly spaced points over the cumulated priorities. So
    every number comes as often as its share of n says, rounded up or down. In increasing order.
    """
    edges = np.cumsum(priority, dtype=np.float64)
    points = (np.arange(len(priority)) + generator.random()) * (edges[-1] / len(priority))
    return np.minimum(np.searchsorted(edges, points, side="right"), len(priority) - 1)
