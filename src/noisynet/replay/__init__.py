"""The replay: every frame stored once, n-step transitions, uniform or prioritised samples.

It needs only numpy, except for `replay.device`, which needs torch. `FrameReplay` keeps the records
of several environments in one ring, in memory or in files; stacks and returns are computed when a
batch is sampled.
"""

from .batch import Batch
from .commit import ReplayDamaged
from .frame_replay import FrameReplay
from .nstep import n_step_return
from .priorities import PrioritySettings, annealed_beta, importance_weights
from .ring import slack_for

__all__ = [
    "Batch",
    "FrameReplay",
    "PrioritySettings",
    "ReplayDamaged",
    "annealed_beta",
    "importance_weights",
    "n_step_return",
    "slack_for",
]
