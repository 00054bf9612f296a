"""Priorities of a rollout's steps: minibatches prefer steps with large errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StepPriorities:
    """Priorities by error, as in a prioritised replay (arXiv 1511.05952, §3.3).

    There are no importance weights: a rollout is learned a few times and then dropped, and its
    errors come from returns that were seen, not from estimates that may stay wrong for long.
    """

    exponent: float
    """α: 0 prefers no step, 1 learns steps in proportion to their error."""
    epsilon: float
    """Number added to every error, in the unit of returns, so that every step can be learned."""

    def __call__(self, error: np.ndarray) -> np.ndarray:
        """Return (|error| + ε)^α, in any shape; the error of a step is G_t - V_t."""
        return (np.abs(error) + self.epsilon) ** self.exponent


def systematic_sample(priority: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw n indices in proportion to n priorities, by systematic sampling: (n,) to (n,).

    One random number places n evenly spaced points over the cumulative priorities. So each index
    appears n times its share of the priorities, rounded up or down. Indices are in increasing
    order.
    """
    edges = np.cumsum(priority, dtype=np.float64)
    points = (np.arange(len(priority)) + generator.random()) * (edges[-1] / len(priority))
    return np.minimum(np.searchsorted(edges, points, side="right"), len(priority) - 1)
