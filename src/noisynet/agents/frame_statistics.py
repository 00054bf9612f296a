"""Frame statistics of random play, for torsos that standardise frames."""

from __future__ import annotations

import numpy as np
import torch

from ..envs import Environments
from ..networks import FramesTorso
from .actor_critic import ActorCritic
from .value_agent import ValueAgent

ENVIRONMENTS = 8
_STEPS = 500
"""Steps of each environment: 8 environments give 4,000 frames, in a few seconds on Atari."""


def measure_frames(agent: ValueAgent | ActorCritic, environments: Environments, seed: int) -> None:
    """Measure the mean frame and the deviation of random play, for the torsos of a new agent.

    Actions are uniformly random, and nothing else is learned from these games. Raises ValueError
    for a game whose frames are all the same.
    """
    frames = torch.from_numpy(_frames_of_random_play(environments, seed))
    for network in agent.networks.values():
        assert isinstance(network.torso, FramesTorso), "only torsos of frames are standardised"
        network.torso.measure_frames(frames)


def _frames_of_random_play(environments: Environments, seed: int) -> np.ndarray:
    """Return the newest frame of each stack, (N, 1, height, width), or whole images, uint8."""
    choose = np.random.Generator(np.random.PCG64(seed))
    frames: list[np.ndarray] = []
    environments.reset()
    for _ in range(_STEPS):
        action = choose.integers(environments.action_count, size=environments.count)
        seen = environments.step(action).observation
        frames.append(seen[:, -1:] if environments.stack > 1 else seen)
    return np.concatenate(frames)
