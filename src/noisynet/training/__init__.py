"""Training: the loop, its listeners, and the session that keeps a run on disk."""

from .events import CheckpointDue, Event, FiguresTaken, GameFinished, TrainingEnded
from .loop import TrainingLoop
from .session import Diverged, Outcome, resume, start

__all__ = [
    "CheckpointDue",
    "Diverged",
    "Event",
    "FiguresTaken",
    "GameFinished",
    "Outcome",
    "TrainingEnded",
    "TrainingLoop",
    "resume",
    "start",
]
