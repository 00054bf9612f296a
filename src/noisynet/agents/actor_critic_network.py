"""The actor-critic's network that a config describes."""

from __future__ import annotations

import torch

from .. import networks
from ..networks import ActorCriticNetwork
from ..runs.config import Config
from .q_network import body_options


def build_actor_critic_network(
    config: Config, observation_shape: tuple[int, ...], actions: int
) -> ActorCriticNetwork:
    """Build it with initial values from the run's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.stream("network"))
        return networks.build_actor_critic_network(
            observation_shape,
            actions,
            lstm_size=config.actor_critic.lstm_size,
            **body_options(config),
        )
