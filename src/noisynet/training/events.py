"""What happens in a run, as the training loop yields it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EndReason = Literal["solved", "steps", "interrupted"]
"""Why a run is over."""


@dataclass(frozen=True, kw_only=True)
class GameFinished:
    """A training game came to its end: its true return and its steps."""

    step: int
    """Agent steps so far, over all environments."""
    game: int
    """Number of the game, from 1."""
    game_return: float
    game_steps: int
    environment: int
    mean_return: float
    """Mean return of the last `games` games."""
    games: int


@dataclass(frozen=True, kw_only=True)
class FiguresTaken:
    """A number of updates was done: figures by their tags, such as `snr/advantage.0`."""

    step: int
    figures: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class CheckpointDue:
    """The run's state is to be saved now."""

    step: int


@dataclass(frozen=True, kw_only=True)
class WorkerRestarted:
    """A worker process of an asynchronous run died, and another one took its place."""

    step: int
    worker: int
    """Number of the worker, from 0."""
    reason: str
    restarts: int
    """Restarts of all workers so far, this one included."""


@dataclass(frozen=True, kw_only=True)
class TrainingEnded:
    """No further step is taken; the run's state is to be saved if it has not been."""

    step: int
    reason: EndReason


Event = GameFinished | FiguresTaken | CheckpointDue | WorkerRestarted | TrainingEnded


def figures_of(event: Event, elapsed: float) -> dict[str, float]:
    """Return what metrics hold of an event after so many seconds; empty for one without figures."""
    times = {"time/elapsed": round(elapsed, 3)}
    if isinstance(event, GameFinished):
        return {
            "game/number": event.game,
            "game/return": event.game_return,
            "game/steps": event.game_steps,
            "game/environment": event.environment,
            "game/mean_return": event.mean_return,
            **times,
        }
    if isinstance(event, FiguresTaken):
        return {**event.figures, **times}
    if isinstance(event, WorkerRestarted):
        return {"worker/number": event.worker, "worker/restarts": event.restarts}
    return {}
