"""The progress of a run: its steps and games, whether it is over or a checkpoint is due."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..envs import FinishedEpisode
from .events import EndReason, GameFinished


class Progress:
    """The count of a run's steps and games, which says when a checkpoint is due or the run is over.

    Steps are decisions of the agent in all environments, except those whose action was ignored
    because the environment was being reset.

    Args:
        steps: agent steps after which the run ends.
        checkpoint_every: steps between checkpoints.
        solved_return: mean return of the last games at which the run is solved; None: never.
        solved_games: how many games that mean is taken over.
    """

    def __init__(
        self,
        *,
        steps: int,
        checkpoint_every: int = 10_000,
        solved_return: float | None = None,
        solved_games: int = 100,
    ) -> None:
        self.steps = steps
        self.step = 0
        """Agent steps so far."""
        self.games = 0
        self._checkpoint_every = checkpoint_every
        self._solved_return = solved_return
        self._returns: deque[float] = deque(maxlen=solved_games)
        self._last_checkpoint = 0
        self._stopping = False

    def stop(self) -> None:
        """Ask the run to end soon, in good order."""
        self._stopping = True

    @property
    def stopping(self) -> bool:
        """Whether an end was asked for."""
        return self._stopping

    @property
    def mean_return(self) -> float | None:
        """Mean return of the last games, at most `solved_games`; None before the first."""
        return float(np.mean(self._returns)) if self._returns else None

    @property
    def end(self) -> EndReason | None:
        """Why the run is over; None while it is not."""
        mean, goal = self.mean_return, self._solved_return
        enough = len(self._returns) == self._returns.maxlen
        if goal is not None and mean is not None and enough and mean >= goal:
            return "solved"
        if self.step >= self.steps:
            return "steps"
        return "interrupted" if self._stopping else None

    def finished(self, step: int, environment: int, game: FinishedEpisode) -> GameFinished:
        """Count a game that ended at agent step `step`, and return the event for it."""
        self.games += 1
        self._returns.append(game.reward_sum)
        return GameFinished(
            step=step,
            game=self.games,
            game_return=game.reward_sum,
            game_steps=game.steps,
            environment=environment,
            mean_return=float(np.mean(self._returns)),
            games=len(self._returns),
        )

    def checkpoint_due(self, *, needed: bool = False) -> bool:
        """Return whether to write a checkpoint now; if so, the next one is counted from here.

        With `needed`, one is due whatever the number of steps.
        """
        due = needed or self.step - self._last_checkpoint >= self._checkpoint_every
        if due:
            self._last_checkpoint = self.step
        return due

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain JSON values."""
        return {"step": self.step, "games": self.games, "returns": list(self._returns)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.step = self._last_checkpoint = int(state["step"])
        self.games = int(state["games"])
        self._returns.extend(float(value) for value in state["returns"])
