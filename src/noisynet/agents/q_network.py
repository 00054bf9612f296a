"""The Q-network that a config describes."""

from __future__ import annotations

from typing import Any

import torch

from .. import networks
from ..networks import NoiseSettings, QNetwork
from ..runs.config import Config


def build_q_network(config: Config, observation_shape: tuple[int, ...], actions: int) -> QNetwork:
    """Build it with initial values from the run's seed."""
    section, support = config.network, None
    if section.atoms:
        support = torch.linspace(section.value_min, section.value_max, section.atoms)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.stream("network"))
        return networks.build_q_network(
            observation_shape,
            actions,
            dueling=section.dueling,
            support=support,
            **body_options(config),
        )


def body_options(config: Config) -> dict[str, Any]:
    """Return what both kinds of network take."""
    section, exploration = config.network, config.exploration
    noise = None
    if exploration.has_noise:
        noise = NoiseSettings(
            kind=exploration.noise, sigma0=exploration.sigma0, where=exploration.noise_in
        )
    return {
        "torso": section.torso,
        "torso_hidden": section.torso_hidden,
        "head_hidden": section.head_hidden,
        "standardise_frames": section.standardise_frames,
        "noise": noise,
    }
