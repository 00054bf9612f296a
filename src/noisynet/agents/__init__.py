"""Agents: one value-based agent and one actor-critic, each with parts chosen by config."""

from .actor_critic import ActorCritic, RolloutLearned
from .actor_critic_network import build_actor_critic_network
from .build import Agent, acting_network, build_agent
from .environments import make_environments
from .frames import measure_frames
from .optimizers import LossNotFinite
from .q_learning import Learned, QLearning
from .q_network import build_q_network
from .rollout import Rollout

__all__ = [
    "ActorCritic",
    "Agent",
    "Learned",
    "LossNotFinite",
    "QLearning",
    "Rollout",
    "RolloutLearned",
    "acting_network",
    "build_actor_critic_network",
    "build_agent",
    "build_q_network",
    "make_environments",
    "measure_frames",
]
