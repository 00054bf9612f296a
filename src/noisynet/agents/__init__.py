"""Agents: two value-based ones and an actor-critic, built from parts that the caller chooses."""

from .actor_critic import ActorCritic, RolloutLearned
from .exploration import LinearEpsilon
from .frame_statistics import measure_frames
from .munchausen import Munchausen
from .noise_control import HeldTarget
from .optimizers import LossNotFinite, StepSize, adam
from .parallel_q import ActingPass, ParallelQLearning, ValuesLearned
from .q_learning import Learned, QLearning
from .quantile_samples import SampledQuantiles
from .revival import Revival
from .rollout import Rollout
from .static_minibatches import StaticMinibatches
from .static_updates import StaticUpdates
from .step_priorities import StepPriorities
from .value_agent import ValueAgent

Agent = QLearning | ParallelQLearning | ActorCritic

__all__ = [
    "ActingPass",
    "ActorCritic",
    "Agent",
    "HeldTarget",
    "Learned",
    "LinearEpsilon",
    "LossNotFinite",
    "Munchausen",
    "ParallelQLearning",
    "QLearning",
    "Revival",
    "Rollout",
    "RolloutLearned",
    "SampledQuantiles",
    "StaticMinibatches",
    "StaticUpdates",
    "StepPriorities",
    "StepSize",
    "ValueAgent",
    "ValuesLearned",
    "adam",
    "measure_frames",
]
