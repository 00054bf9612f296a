"""Agents: one value-based agent and one actor-critic, built from parts of one's choice."""

from .actor_critic import ActorCritic, RolloutLearned
from .exploration import LinearEpsilon
from .frame_statistics import measure_frames
from .optimizers import LossNotFinite, StepSize, adam
from .q_learning import Learned, QLearning
from .rollout import Rollout
from .static_updates import StaticUpdates

Agent = QLearning | ActorCritic

__all__ = [
    "ActorCritic",
    "Agent",
    "Learned",
    "LinearEpsilon",
    "LossNotFinite",
    "QLearning",
    "Rollout",
    "RolloutLearned",
    "StaticUpdates",
    "StepSize",
    "adam",
    "measure_frames",
]
