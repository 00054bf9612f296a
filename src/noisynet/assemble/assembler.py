"""The parts of a run, built once from its config: environments, agent, replay, loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import torch

from ..agents import ActorCritic, Agent, ParallelQLearning, QLearning
from ..envs import Environments, UnusableEnvironment
from ..replay import FrameReplay
from ..runs.checkpoint import Checkpoint, fits_config
from ..runs.config import Config
from ..runs.errors import RunError, first_line
from ..runs.folder import RunFolder
from ..runs.provenance import provenance
from ..runs.seeds import SEEDS
from ..training import (
    AsynchronousLoop,
    Loop,
    MinibatchLearner,
    Progress,
    ReplayLearner,
    ReplaySource,
    RolloutLearner,
    RolloutSource,
    TrainingLoop,
    UpdateSchedule,
)
from ..training.replay_learner import Memory
from .agents import build_agent, measure_frames_of, step_size
from .cures import check_cures
from .environments import make_environments
from .memory_check import check_frames, check_network
from .replay import build_replay, reopen_replay
from .resolve import is_open, resolve, set_threads
from .workers import WorkerParts


class Assembler:
    """A builder of the parts of a run in one process, in two steps that a session asks for.

    `prepare` sets the threads, makes the environments, resolves what the config leaves open and
    builds the agent, so that errors in a config show before there is a folder. `loop` then builds
    what lives in the run's folder, and joins the parts. Leaving the context closes the
    environments.
    """

    def __init__(self, config: Config, tell: Callable[[str], object] | None = None) -> None:
        """Take the config; `tell` is called with a few words on what is measured before training.

        Raises RunError for a config that this assembler cannot build.
        """
        self.config = config
        self._tell = tell or (lambda _: None)
        self._check()

    def _check(self) -> None:
        if self.config.scale.actors is not None:
            raise RunError(
                f"--actors: got {self.config.scale.actors}, expected none here: `noisynet train` "
                "and `noisynet.samplers` train with sampler actors"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if hasattr(self, "environments"):
            self.environments.close()

    def prepare(self, found: Checkpoint | None = None) -> Config:
        """Build the environments and the agent; return the config with all choices made.

        `found` is the checkpoint that the run continues from, which `loop` restores. Raises
        RunError, with a message of one line, if they cannot be built.
        """
        self.found = found
        self.config = set_threads(self.config)
        check_frames(self.config)
        self.environments = self._make_environments()
        check_network(self.config, self.environments)
        with self._fits_environments():
            if found is None:
                made_with = provenance(torch=torch.__version__)
                self.config = self.config.replaced(made_with=made_with)
            # At the start also for a graph that is asked for, which may not be possible here.
            if found is None or is_open(self.config):
                self.config = resolve(self.config, self.environments, self._tell)
            check_cures(self.config, self.environments)
            self.agent = self._build_agent()
        return self.config

    def _make_environments(self) -> Environments:
        seed = None
        if self.found is not None:
            # Games that cannot be restored must not repeat the run's first games.
            seed = (self.config.training.seed + self.found.step) % SEEDS
        try:
            return make_environments(self.config, seed=seed)
        except UnusableEnvironment as error:
            raise RunError(str(error)) from error

    @contextmanager
    def _fits_environments(self) -> Iterator[None]:
        """Raise RunError, which names the environments, if no agent can be built for them."""
        try:
            yield
        except ValueError as error:
            raise RunError(f"{self.environments.id}: {first_line(error)}") from error
        except RuntimeError as error:  # of torch: values too large for it, or too little memory
            where = self.environments.id
            raise RunError(f"no agent can be built for {where}: {first_line(error)}") from error

    def _build_agent(self) -> Agent:
        environments = self.environments
        agent = build_agent(self.config, environments.observation_shape, environments.action_count)
        if self.found is None:
            # A checkpoint already holds these measurements.
            measure_frames_of(self.config, agent, self._tell)
        return agent

    def loop(self, folder: RunFolder) -> Loop:
        """Build the loop in a run's folder, and restore it if the run is resumed.

        Raises RunError, with a message of one line, if the folder cannot be written or the
        checkpoint does not fit the config.
        """
        if self.found is None:
            return self._build_loop(folder)
        with fits_config(folder.path):
            self.agent.restore(self.found.arrays, self.found.state["agent"])
            loop = self._build_loop(folder)
            loop.restore(self.found.state["loop"])
        return loop

    def notes(self) -> list[str]:
        """Return remarks for the user on resuming this run."""
        if self.config.learning.algorithm == "a3c":
            return ["asynchronous workers start new games"]
        if not self.environments.can_save_state:
            game = self.config.environment.environment
            return [f"the state of {game} cannot be saved: the games in flight start anew"]
        return []

    def _build_loop(self, folder: RunFolder) -> Loop:
        if isinstance(self.agent, QLearning):
            return self._replay_loop(self.agent, folder)
        if isinstance(self.agent, ActorCritic) and self.config.learning.algorithm == "a3c":
            return self._asynchronous_loop(self.agent)
        return self._rollout_loop(self.agent)

    def progress(self) -> Progress:
        """Build the counter of the run's steps and games."""
        training = self.config.training
        return Progress(
            steps=training.steps,
            checkpoint_every=training.checkpoint_every,
            solved_return=training.solved_return,
            solved_games=training.solved_games,
        )

    def _replay_loop(self, agent: QLearning, folder: RunFolder) -> Loop:
        replay = self._replay(folder)
        source = ReplaySource(
            self.environments,
            agent,
            replay,
            reward_clip=self.config.learning.reward_clip,
            overlap=self.config.overlaps,
        )
        return TrainingLoop(self.progress(), source, self.replay_learner(agent, replay))

    def _replay(self, folder: RunFolder) -> FrameReplay:
        if self.found is None:
            return build_replay(self.config, self.environments, folder)
        return reopen_replay(self.config, folder, self.found.state["replay"])

    def replay_learner(self, agent: QLearning, replay: Memory) -> ReplayLearner:
        """Build the learner of a value-based agent."""
        learning, training = self.config.learning, self.config.training
        return ReplayLearner(
            agent,
            replay,
            update_schedule(self.config),
            batch_size=learning.batch_size,
            n_step=learning.n_step,
            discount=learning.discount,
            target_every=learning.target_every,
            step_size=step_size(self.config),
            beta=learning.priority_beta if learning.prioritised else None,
            log_every=training.log_every,
            from_graph=training.execution == "graph",
        )

    def _rollout_loop(self, agent: ActorCritic | ParallelQLearning) -> Loop:
        source = RolloutSource(
            self.environments,
            agent,
            steps=self.config.rollouts.rollout_steps,
            discount=self.config.learning.discount,
            reward_clip=self.config.learning.reward_clip,
            overlap=self.config.overlaps,
        )
        return TrainingLoop(self.progress(), source, self.rollout_learner(agent))

    def rollout_learner(
        self, agent: ActorCritic | ParallelQLearning
    ) -> RolloutLearner | MinibatchLearner:
        """Build the learner of an agent that learns from rollouts."""
        size, log_every = step_size(self.config), self.config.training.log_every
        if isinstance(agent, ActorCritic):
            return RolloutLearner(agent, step_size=size, log_every=log_every)
        return MinibatchLearner(
            agent,
            step_size=size,
            log_every=log_every,
            from_graph=self.config.training.execution == "graph",
        )

    def _asynchronous_loop(self, agent: ActorCritic) -> Loop:
        parts = WorkerParts(
            self.config, self.environments.observation_shape, self.environments.action_count
        )
        return AsynchronousLoop(
            self.progress(), agent, parts, workers=self.config.actor_critic.workers
        )


def update_schedule(config: Config) -> UpdateSchedule:
    """Build the schedule of a value-based agent's updates."""
    learning = config.learning
    return UpdateSchedule(warmup_steps=learning.warmup_steps, update_every=learning.update_every)
