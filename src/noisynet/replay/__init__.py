"""What an agent remembers: transitions with every frame stored once, and n-step returns.

numpy only. `FrameReplay` keeps the records of several environments in one ring, in memory or in
files; stacks and returns are put together when a batch is sampled, uniformly or by priority.
"""

from noisynet.replay.files import ReplayDamaged
from noisynet.replay.frames import FrameReplay
from noisynet.replay.nstep import n_step_return
from noisynet.replay.prioritized import PrioritySettings, annealed_beta
from noisynet.replay.transitions import Batch

__all__ = [
    "Batch",
    "FrameReplay",
    "PrioritySettings",
    "ReplayDamaged",
    "annealed_beta",
    "n_step_return",
]
