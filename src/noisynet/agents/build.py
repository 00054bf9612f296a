"""The agent that a config describes."""

from __future__ import annotations

from torch import nn

from ..runs.config import Config
from .actor_critic import ActorCritic
from .q_learning import QLearning

Agent = QLearning | ActorCritic


def build_agent(config: Config, observation_shape: tuple[int, ...], actions: int) -> Agent:
    """Build it for environments; raises ValueError for observations that its network takes not."""
    kind = ActorCritic if config.learning.is_actor_critic else QLearning
    return kind(config, observation_shape, actions)


def acting_network(agent: Agent) -> nn.Module:
    """Give the network that chooses the actions."""
    return agent.network if isinstance(agent, ActorCritic) else agent.online
