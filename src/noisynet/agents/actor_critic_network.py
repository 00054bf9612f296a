"""The actor-critic's network that a config describes."""

from __future__ import annotations

import torch
from torch import nn

from ..layers import NoisyLSTMCell
from ..networks import ActorCriticHead, ActorCriticNetwork, RecurrentCore, make_torso
from ..runs.config import Config
from .q_network import head_layers, make_torso_noisy


def build_actor_critic_network(
    config: Config, observation_shape: tuple[int, ...], actions: int
) -> ActorCriticNetwork:
    """Build it with initial values from the run's seed.

    `noise_in` says how far the noise reaches: `last` means policy and value, `head` the hidden
    layer too, `all` the torso and the LSTM as well.
    """
    section, exploration = config.network, config.exploration
    noisy_body = exploration.has_noise and exploration.noise_in == "all"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.stream("network"))
        torso = make_torso(
            section.torso,
            observation_shape,
            section.torso_hidden,
            standardise_frames=section.standardise_frames,
        )
        linear, hidden_linear = head_layers(config)
        hidden = hidden_linear(torso.features, section.head_hidden)
        features, core = section.head_hidden, None
        size = config.actor_critic.lstm_size
        if size:
            if noisy_body:
                cell: nn.LSTMCell = NoisyLSTMCell(
                    features, size, noise=exploration.noise, sigma0=exploration.sigma0
                )
            else:
                cell = nn.LSTMCell(features, size)
            features, core = size, RecurrentCore(cell)
        head = ActorCriticHead(features, actions, linear)
        if noisy_body:
            make_torso_noisy(torso, config)
        return ActorCriticNetwork(torso, hidden, core, head)
