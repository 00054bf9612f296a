"""Games and their true returns, counted from the steps of a vector environment."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .arguments import whole
from .vector import Step, UnusableEnvironment


@dataclass(frozen=True, slots=True)
class FinishedEpisode:
    """A whole game, from its first observation to its real end, which a lost life is not."""

    environment: int
    """The environment that played it."""
    reward_sum: float
    """The true return: the plain sum of its unclipped rewards."""
    steps: int
    """Agent steps taken in it."""


class EpisodeCounter:
    """A counter of the games of N environments, to be updated with every step after `reset`."""

    def __init__(self, count: int) -> None:
        self.count = whole("count", count, 1)
        self._reward_sum = np.zeros(self.count, dtype=np.float64)
        self._steps = np.zeros(self.count, dtype=np.int64)

    def update(self, step: Step) -> list[FinishedEpisode]:
        """Count one vector step; return the games known to be over, by environment.

        A game is reported with its last step where `ended` says so, and otherwise with the
        `first` that follows; never twice.
        """
        if step.reward.shape != (self.count,):
            raise UnusableEnvironment(
                f"step: got one of {len(step.reward)} environments, expected {self.count}"
            )
        finished: list[FinishedEpisode] = []
        # A first step belongs to no game: a game still open there had ended one step before.
        finished += self.close(step.first)
        self._reward_sum += np.where(step.first, 0.0, step.reward)
        self._steps += ~step.first
        finished += self.close(step.ended)
        return sorted(finished, key=lambda episode: episode.environment)

    def state(self) -> dict[str, Any]:
        """Return the games under way as plain values that JSON keeps exactly."""
        return {"reward_sum": self._reward_sum.tolist(), "steps": self._steps.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on counting from a saved state; raise UnusableEnvironment if N differs."""
        if len(state["steps"]) != self.count:
            raise UnusableEnvironment(
                f"state: got one of {len(state['steps'])} environments, expected {self.count}"
            )
        self._reward_sum = np.array(state["reward_sum"], dtype=np.float64)
        self._steps = np.array(state["steps"], dtype=np.int64)

    def close(self, over: "np.ndarray[Any, np.dtype[np.bool_]]") -> list[FinishedEpisode]:
        """End the games that `over` (N,) marks; return them, except those without a step."""
        finished = [
            FinishedEpisode(int(index), float(self._reward_sum[index]), int(self._steps[index]))
            for index in np.flatnonzero(over & (self._steps > 0))
        ]
        self._reward_sum[over] = 0.0
        self._steps[over] = 0
        return finished
