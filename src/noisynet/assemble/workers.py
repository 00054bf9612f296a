"""The parts of an a3c worker, built from the config in the worker's own process."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..agents import ActorCritic
from ..runs.config import Config
from ..runs.seeds import SEEDS
from ..training.a3c import Worker, WorkerNumber
from ..training.player import Player
from .agents import build_agent, step_size
from .environments import make_environments
from .resolve import threads_each


@dataclass(frozen=True)
class WorkerParts:
    """A builder of a worker's parts, which can be pickled and sent to the worker's process."""

    config: Config
    observation_shape: tuple[int, ...]
    actions: int

    def own_config(self, assignment: WorkerNumber) -> Config:
        """Return the config with this worker's seed and share of the threads.

        Seeds differ between workers, between a process and the one that replaces it, and between
        a run and its resumption, so that no game and no noise is played twice.
        """
        one = assignment
        name = f"worker {one.number}.{one.life} from {one.steps_before}"
        seed = self.config.training.stream(name) % SEEDS
        return self.config.replaced(seed=seed, threads=threads_each(self.config))

    def __call__(self, assignment: WorkerNumber) -> Worker:
        """Build the parts of the worker that `assignment` names."""
        config = self.own_config(assignment)
        torch.set_num_threads(config.training.threads)
        environments = make_environments(config)
        try:
            agent = build_agent(config, self.observation_shape, self.actions)
        except BaseException:
            environments.close()
            raise
        assert isinstance(agent, ActorCritic), "a3c trains an actor-critic"
        return Worker(
            player=Player(environments, config.learning.reward_clip),
            agent=agent,
            step_size=step_size(self.config),
            rollout_steps=config.rollouts.rollout_steps,
            discount=config.learning.discount,
            log_every=config.training.log_every,
        )
