"""Training: sources of experience, learners, the loop that joins them, the session on disk."""

from ..runs.errors import Diverged
from .a3c import AsynchronousLoop, WorkersFailed
from .events import (
    CheckpointDue,
    Event,
    FiguresTaken,
    GameFinished,
    TrainingEnded,
    WorkerRestarted,
)
from .loop import TrainingLoop
from .minibatch_learner import MinibatchLearner
from .progress import Progress
from .replay_learner import ReplayLearner
from .rollout_learner import RolloutLearner
from .session import Assembler, Listener, Loop, Outcome
from .sources import ReplaySource, RolloutSource
from .update_schedule import UpdateSchedule

__all__ = [
    "Assembler",
    "AsynchronousLoop",
    "CheckpointDue",
    "Diverged",
    "Event",
    "FiguresTaken",
    "GameFinished",
    "Listener",
    "Loop",
    "MinibatchLearner",
    "Outcome",
    "Progress",
    "ReplayLearner",
    "ReplaySource",
    "RolloutLearner",
    "RolloutSource",
    "TrainingEnded",
    "TrainingLoop",
    "UpdateSchedule",
    "WorkerRestarted",
    "WorkersFailed",
]
