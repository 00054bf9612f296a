"""The Q-network that a config describes."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from ..layers import NoisyLinear, noisify
from ..networks import DistributionalHead, DuelingHead, MakeLinear, QHead, QNetwork, make_torso
from ..runs.config import Config


def build_q_network(config: Config, observation_shape: tuple[int, ...], actions: int) -> QNetwork:
    """Build it with initial values from the run's seed."""
    section, exploration = config.network, config.exploration
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.stream("network"))
        torso = make_torso(
            section.torso,
            observation_shape,
            section.torso_hidden,
            standardise_frames=section.standardise_frames,
        )
        linear, hidden_linear = head_layers(config)
        sizes = (torso.features, section.head_hidden, actions)
        if section.atoms:
            head = DistributionalHead(
                *sizes,
                linear,
                hidden_linear,
                support=torch.linspace(section.value_min, section.value_max, section.atoms),
                dueling=section.dueling,
            )
        else:
            head = (DuelingHead if section.dueling else QHead)(*sizes, linear, hidden_linear)
        if exploration.has_noise and exploration.noise_in == "all":
            make_torso_noisy(torso, config)
        return QNetwork(torso, head)


def head_layers(config: Config) -> tuple[MakeLinear, MakeLinear]:
    """Give what builds a head's last layers, and its hidden ones: noisy as the config says."""
    section = config.exploration
    if not section.has_noise:
        return nn.Linear, nn.Linear
    noisy = partial(NoisyLinear, noise=section.noise, sigma0=section.sigma0)
    return noisy, (nn.Linear if section.noise_in == "last" else noisy)


def make_torso_noisy(torso: nn.Module, config: Config) -> None:
    """Make every layer of a torso noisy that can be; one without layers stays as it is."""
    if any(True for _ in torso.parameters()):
        section = config.exploration
        noisify(torso, where=lambda *_: True, noise=section.noise, sigma0=section.sigma0)
