"""What an agent remembers: transitions with every frame stored once, and n-step returns.

numpy only. `FrameReplay` keeps the records of several environments in one ring, in memory or in
files; stacks and returns are put together when a batch is sampled, uniformly or by priority.
"""

from .batch import Batch
from .files import ReplayDamaged
from .frames import FrameReplay
from .nstep import n_step_return
from .prioritized import PrioritySettings, annealed_beta

__all__ = [
    "Batch",
    "FrameReplay",
    "PrioritySettings",
    "ReplayDamaged",
    "annealed_beta",
    "n_step_return",
]
