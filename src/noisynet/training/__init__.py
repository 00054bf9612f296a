"""Training: the loops, their listeners, and the session that keeps a run on disk."""

from .asynchronous import AsynchronousLoop, WorkersFailed
from .events import (
    CheckpointDue,
    Event,
    FiguresTaken,
    GameFinished,
    TrainingEnded,
    WorkerRestarted,
)
from .loop import TrainingLoop
from .rollout_loop import RolloutLoop
from .session import Diverged, Outcome, resume, start, train, train_on

__all__ = [
    "AsynchronousLoop",
    "CheckpointDue",
    "Diverged",
    "Event",
    "FiguresTaken",
    "GameFinished",
    "Outcome",
    "RolloutLoop",
    "TrainingEnded",
    "TrainingLoop",
    "WorkerRestarted",
    "WorkersFailed",
    "resume",
    "start",
    "train",
    "train_on",
]
