"""An agent for Pong and random experience, with which updates are timed without a game."""

from __future__ import annotations

from typing import Any

import numpy as np

from noisynet.agents import QLearning, Rollout
from noisynet.assemble import build_agent
from noisynet.replay import Batch
from noisynet.runs import Config

SHAPE, ACTIONS = (4, 84, 84), 6


def made_up_batch(size: int, device: str | None = None) -> Batch[Any]:
    """Return random transitions: numpy arrays, or tensors on a device if one is named."""
    generator = np.random.Generator(np.random.PCG64(0))
    batch = Batch(
        observation_tm1=generator.integers(0, 256, (size, *SHAPE), np.uint8),
        observation_t=generator.integers(0, 256, (size, *SHAPE), np.uint8),
        action_tm1=generator.integers(ACTIONS, size=size),
        return_t=np.ones(size, np.float32),
        discount_t=np.full(size, 0.99, np.float32),
    )
    return batch if device is None else batch.to(device)


def made_up_rollout(config: Config) -> Rollout:
    """Return a rollout of a config's size, with random frames of games that do not end."""
    steps, count = config.rollouts.rollout_steps, config.environment.environments
    generator = np.random.Generator(np.random.PCG64(0))
    never = np.zeros((steps, count), bool)
    return Rollout.of_steps(
        observation=generator.integers(0, 256, (steps + 1, count, *SHAPE), np.uint8),
        first=np.zeros((steps + 1, count), bool),
        action=generator.integers(ACTIONS, size=(steps, count)),
        reward=np.ones((steps, count), np.float32),
        terminated=never,
        truncated=never,
        ignored=never,
        discount=config.learning.discount,
    )


def pong_agent(config: Config) -> QLearning:
    """Build the value-based agent of a config, for the observations and actions of Pong."""
    agent = build_agent(config, SHAPE, ACTIONS)
    assert isinstance(agent, QLearning), "the presets timed here learn values"
    return agent
