"""Updates of a new agent on made-up experience, which show before a run how updates will go."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..agents import ActorCritic, ParallelQLearning, Rollout, StaticMinibatches, StaticUpdates
from ..envs import Environments
from ..replay import Batch
from ..runs.config import Config
from .agents import build_agent


def trial_update(config: Config, environments: Environments) -> Callable[[], object]:
    """Return a function that takes one update of a new agent on made-up experience.

    Observations are random, since a network may not accept those that are zero everywhere. Raises
    ValueError as `build_agent` does. The function raises what an update raises.
    """
    agent = build_agent(config, environments.observation_shape, environments.action_count)
    from_graph = config.training.execution == "graph"
    if isinstance(agent, ActorCritic):
        rollout = _made_up_rollout(config, environments)
        return lambda: agent.update(rollout)
    if isinstance(agent, ParallelQLearning):
        rollout = _made_up_rollout(config, environments)
        minibatches = StaticMinibatches(agent) if from_graph else agent

        def update() -> None:
            if not agent.updates_left:
                agent.begin(rollout)
            minibatches.update()

        return update
    batch = _made_up_batch(config, environments)
    updates = StaticUpdates(agent) if from_graph else agent
    return lambda: updates.update(batch)


def _made_up_batch(config: Config, environments: Environments) -> Batch[np.ndarray]:
    size = config.learning.batch_size
    observation = _made_up_observations((size,), environments)
    return Batch(
        observation_tm1=observation,
        action_tm1=np.zeros(size, np.int64),
        return_t=np.zeros(size, np.float32),
        discount_t=np.zeros(size, np.float32),
        observation_t=observation,
    )


def _made_up_rollout(config: Config, environments: Environments) -> Rollout:
    steps, count = config.rollouts.rollout_steps, environments.count
    none = np.zeros((steps, count), bool)
    return Rollout.of_steps(
        observation=_made_up_observations((steps + 1, count), environments),
        first=np.zeros((steps + 1, count), bool),
        action=np.zeros((steps, count), np.int64),
        reward=np.zeros((steps, count), np.float32),
        terminated=none,
        truncated=none,
        ignored=none,
        discount=config.learning.discount,
    )


def _made_up_observations(leading: tuple[int, ...], environments: Environments) -> np.ndarray:
    """Return random observations (*leading, *shape): floats around 0, or zeros and ones."""
    generator = np.random.Generator(np.random.PCG64(0))
    shape, dtype = (*leading, *environments.observation_shape), environments.observation_dtype
    if dtype.kind == "f":
        return generator.standard_normal(shape, np.float32)
    return generator.integers(0, 2, shape, dtype)
