"""What a game's frames look like before anything is learned: for torsos that standardise them."""

from __future__ import annotations

import numpy as np
import torch

from ..networks import FramesTorso
from ..runs.config import Config
from ..runs.sections import SEEDS
from .actor_critic import ActorCritic
from .build import Agent
from .environments import make_environments

_ENVIRONMENTS = 8
_STEPS = 500
"""Of each environment: 4,000 frames, some seconds of Atari."""


def measure_frames(config: Config, agent: Agent) -> None:
    """Tell the torsos of a new agent what the frames of uniformly random play look like.

    Does nothing where the config standardises none. These 4,000 steps are played beside the run,
    in games of their own seed: nothing is learned from them but a mean frame and a deviation, and
    they do not count. Raises ValueError for a game whose frames are all the same.
    """
    if not config.network.standardise_frames:
        return
    frames = torch.from_numpy(_frames_of_random_play(config))
    networks = [agent.network] if isinstance(agent, ActorCritic) else [agent.online, agent.target]
    for network in networks:
        assert isinstance(network.torso, FramesTorso), "only torsos of frames are standardised"
        network.torso.measure_frames(frames)


def _frames_of_random_play(config: Config) -> np.ndarray:
    """Give the newest frame of each stack, (N, 1, height, width), or whole images, uint8."""
    seed = config.training.stream("frames") % SEEDS
    environments = make_environments(config, count=_ENVIRONMENTS, seed=seed)
    choose = np.random.Generator(np.random.PCG64(seed))
    frames: list[np.ndarray] = []
    try:
        environments.reset()
        for _ in range(_STEPS):
            action = choose.integers(environments.action_count, size=_ENVIRONMENTS)
            seen = environments.step(action).observation
            frames.append(seen[:, -1:] if environments.stack > 1 else seen)
    finally:
        environments.close()
    return np.concatenate(frames)
