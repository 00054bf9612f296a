"""The parts of a run with sampler actors, in this process or on Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, Self

import numpy as np

from ..agents import ActorCritic, Agent, ParallelQLearning, QLearning
from ..assemble import Assembler
from ..assemble.replay import priority_settings, slack_of
from ..assemble.resolve import local_cpus
from ..cluster.connection import connect
from ..cluster.errors import ScaleError
from ..replay import ReplayDamaged
from ..runs.checkpoint import Checkpoint
from ..runs.config import Config
from ..runs.errors import RunError
from ..runs.folder import RunFolder
from ..training import Loop, TrainingLoop
from .backend import InProcessSamplers, Samplers
from .crew import Crew
from .messages import Assignment
from .replay_source import SampledReplaySource
from .rollout_source import SampledRolloutSource
from .sampler import weights_of
from .shard import ShardPlan
from .sharded_replay import LocalHost, MakeHost, ShardedReplay, with_shards


class SamplersAssembler(Assembler):
    """An assembler of runs with samplers, on Ray or in this process; leaving it ends the samplers.

    `address` is that of a Ray cluster; without it, Ray runs on this machine for as long as the run.
    """

    samplers: Samplers
    _make_shard: MakeHost
    _resources: ExitStack

    def __init__(
        self,
        config: Config,
        address: str | None = None,
        tell: Callable[[str], object] | None = None,
    ) -> None:
        self.address = address
        super().__init__(config, tell)

    def _check(self) -> None:
        if self.config.scale.actors is None:
            raise ScaleError("--actors: got none, expected how many samplers are to play")

    @property
    def _on_ray(self) -> bool:
        return self.config.scale.backend == "ray"

    @property
    def _actors(self) -> int:
        return self.config.scale.actors or 1

    def __enter__(self) -> Self:
        """Make or connect to what runs samplers; raises ScaleError if that fails."""
        # Checked here, since the backend of a resumed run may have changed.
        if self.address is not None and not self._on_ray:
            raise ScaleError(
                f"--ray: got {self.address!r}, expected none with --backend in-process"
            )
        # Until `pop_all`, an error or an interrupt in here ends Ray, too.
        with ExitStack() as resources:
            if not self._on_ray:
                samplers = InProcessSamplers()
                self.samplers = samplers
                self._make_shard = partial(LocalHost, fetch=samplers.open)
            else:
                resources.enter_context(connect(self.address, cpus=self._actors))
                # Ray is an extra, and slow to import.
                from .ray_backend import RaySamplers, RayShard

                self.samplers, self._make_shard = RaySamplers(), RayShard
            resources.callback(self.samplers.close)
            self._resources = resources.pop_all()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._resources.close()
        super().__exit__(*error)

    def prepare(self, found: Checkpoint | None = None) -> Config:
        """Build as `Assembler.prepare` does, leaving a core to each sampler on this machine."""
        if not self.config.training.threads and self.address is None and self._on_ray:
            self.config = self.config.replaced(threads=max(local_cpus() - self._actors, 1))
        return super().prepare(found)

    def notes(self) -> list[str]:
        """Return remarks for the user on resuming this run."""
        return ["sampler actors start new games"]

    def _replay_loop(self, agent: QLearning, folder: RunFolder) -> Loop:
        section = self.config.scale
        replay = self._sharded_replay(folder)
        learner = self.replay_learner(agent, replay)
        source = SampledReplaySource(
            agent,
            replay,
            self._crew(agent),
            learner.schedule,
            n_step=self.config.learning.n_step,
            environments=self.environments.count,
            fragment_steps=section.fragment_steps,
            weights_every=section.weights_every,
            max_staleness=section.max_staleness,
        )
        return TrainingLoop(self.progress(), source, learner)

    def _rollout_loop(self, agent: ActorCritic | ParallelQLearning) -> Loop:
        source = SampledRolloutSource(
            agent,
            self._crew(agent),
            environments=self.environments.count,
            stack=self.environments.stack,
            max_staleness=self.config.scale.max_staleness or 0,
        )
        return TrainingLoop(self.progress(), source, self.rollout_learner(agent))

    def _crew(self, agent: Agent) -> Crew:
        steps_before = 0 if self.found is None else self.found.step

        def assignment(number: int, life: int) -> Assignment:
            return Assignment(
                config=self.config,
                observation_shape=self.environments.observation_shape,
                actions=self.environments.action_count,
                stack=self.environments.stack,
                number=number,
                life=life,
                steps_before=steps_before,
            )

        weights = partial(weights_of, agent.network)
        return Crew(self.samplers, assignment, self._actors, weights)

    def _sharded_replay(self, folder: RunFolder) -> ShardedReplay:
        """Make or reopen the shards; raises RunError, with a message of one line, if that fails."""
        section, learning, training = self.config.scale, self.config.learning, self.config.training
        environments = self.environments
        saved: Mapping[str, Any] | None = None
        if self.found is not None:
            saved = self.found.state["replay"]
        whole = ShardPlan(
            number=0,
            samplers=(),
            environments=environments.count,
            capacity=learning.replay_capacity,
            frame_shape=environments.frame_shape,
            frame_dtype=np.dtype(environments.observation_dtype).str,
            stack=environments.stack,
            slack=slack_of(self.config),
            seed=0,
            priority=priority_settings(self.config),
            folder=folder.replay.resolve(),
        )
        plans = with_shards(
            whole,
            self._actors,
            section.replay_shards,
            lambda number: training.stream(f"replay {number}"),
        )
        local = partial(LocalHost, fetch=self.samplers.open)
        try:
            replay = ShardedReplay(
                plans,
                self._make_shard if section.replay_shards else local,
                saved=None if saved is None else saved["shards"],
                n_step=learning.n_step,
                seed=training.stream("shares"),
            )
            if saved is not None:
                replay.restore_generator(saved["generator"])
        except ReplayDamaged as error:
            raise RunError(f"{folder.replay}: {error}") from error
        except OSError as error:
            raise RunError(f"{folder.replay}: {error.strerror or error}") from error
        except ValueError as error:
            raise RunError(f"--replay-capacity, --n-step: {error}") from error
        self._resources.callback(replay.close)
        return replay
