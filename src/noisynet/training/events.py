"""The events of a run, which the training loop yields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EndReason = Literal["solved", "steps", "interrupted"]
"""Why a run is over."""


@dataclass(frozen=True, kw_only=True)
class GameFinished:
    """The end of a training game, with its true return and its steps."""

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
    """The figures of the last updates by their tags, such as `snr/advantage.0`."""

    step: int
    figures: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class CheckpointDue:
    """A request to save the run's state now."""

    step: int


@dataclass(frozen=True, kw_only=True)
class WorkerRestarted:
    """The replacement of a worker process, sampler or replay shard that died."""

    step: int
    worker: int
    """Number of the worker or sampler, from 0; shards are numbered after the samplers."""
    reason: str
    restarts: int
    """All restarts in this session so far, including this one."""


@dataclass(frozen=True, kw_only=True)
class TrainingEnded:
    """The end of training: no further step is taken, and the run's state must be saved."""

    step: int
    reason: EndReason


Event = GameFinished | FiguresTaken | CheckpointDue | WorkerRestarted | TrainingEnded


def figures_of(event: Event, elapsed: float) -> dict[str, float]:
    """Return the metrics of an event after `elapsed` seconds of training; empty if it has none."""
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
