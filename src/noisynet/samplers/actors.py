"""A run with sampler actors: its parts, put together in this process or on Ray."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..agents import ActorCritic, Agent, QLearning
from ..envs import Environments
from ..replay import PrioritySettings, ReplayDamaged
from ..runs import config as run_config
from ..runs.checkpoint import Checkpoint
from ..runs.config import Config
from ..runs.errors import RunError
from ..runs.folder import RunFolder
from ..training import Event, Outcome, session
from ..training.parts import Loop, Parts, agent_for, new_agent
from .backend import InProcessSamplers, Samplers
from ..cluster.connection import connect
from .crew import Crew
from ..cluster.errors import ScaleError
from .messages import Assignment
from .replay import LocalHost, MakeHost, ShardedReplay, with_shards
from .rollout_loop import SampledRolloutLoop
from .sampler import environments_in, weights_of
from .shard import ShardPlan
from .value_loop import SamplerLoop


@dataclass(frozen=True)
class SampledParts(Parts):
    """A loop with samplers, and the shards that are to be committed with it where it has any."""

    shards: ShardedReplay | None = None

    def commit(self) -> dict[str, Any]:
        """Bring the replay to the disk; give what refers to it."""
        return {} if self.shards is None else {"replay": self.shards.commit()}


class WithSamplers:
    """Build runs whose samplers and shards live where `samplers` says; `close` ends them all."""

    def __init__(self, samplers: Samplers, make_shard: MakeHost) -> None:
        """Take the backend: where samplers live, and what makes a shard in its own process."""
        self._samplers = samplers
        self._make_shard = make_shard
        self._shards: ShardedReplay | None = None

    def new(self, config: Config, environments: Environments, folder: RunFolder) -> Parts:
        """Build everything for a run that begins."""
        agent = new_agent(config, environments)
        shards = self._replay(config, environments, folder, None) if _learns_q(agent) else None
        return SampledParts(self._loop(config, environments, agent, shards, 0), shards=shards)

    def restored(
        self, config: Config, environments: Environments, folder: RunFolder, found: Checkpoint
    ) -> Parts:
        """Build everything for a run that goes on; raises RunError for what does not fit."""
        agent = agent_for(config, environments)
        try:
            agent.restore(found.arrays, found.state["agent"])
            shards = None
            if _learns_q(agent):
                shards = self._replay(config, environments, folder, found.state["replay"])
            loop = self._loop(config, environments, agent, shards, found.step)
            loop.restore(found.state["loop"])
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            what = str(error).splitlines()[0]
            raise RunError(
                f"{folder.path}: its checkpoint does not fit its config: {what}"
            ) from error
        return SampledParts(loop, shards=shards)

    def close(self) -> None:
        """End samplers and shards."""
        self._samplers.close()
        if self._shards is not None:
            self._shards.close()

    def _loop(
        self,
        config: Config,
        environments: Environments,
        agent: Agent,
        shards: ShardedReplay | None,
        steps_before: int,
    ) -> Loop:
        network = agent.network if isinstance(agent, ActorCritic) else agent.online

        def assignment(number: int, life: int) -> Assignment:
            return Assignment(
                config=config,
                observation_shape=environments.observation_shape,
                actions=environments.action_count,
                stack=environments.stack,
                number=number,
                life=life,
                steps_before=steps_before,
            )

        crew = Crew(
            self._samplers, assignment, config.scale.actors or 1, partial(weights_of, network)
        )
        if isinstance(agent, ActorCritic):
            return SampledRolloutLoop(config, agent, crew, environments.stack)
        assert shards is not None, "q_learning has a replay"
        return SamplerLoop(config, agent, shards, crew)

    def _replay(
        self,
        config: Config,
        environments: Environments,
        folder: RunFolder,
        saved: Mapping[str, Any] | None,
    ) -> ShardedReplay:
        """Make the shards, or reopen them; raises RunError with one line where it cannot."""
        section, learning, training = config.scale, config.learning, config.training
        shape = environments.observation_shape
        whole = ShardPlan(
            number=0,
            samplers=(),
            environments=environments.count,
            capacity=learning.replay_capacity,
            frame_shape=shape[1:] if environments.stack > 1 else shape,
            frame_dtype=np.dtype(environments.observation_dtype).str,
            stack=environments.stack,
            slack=_slack(config),
            seed=0,
            priority=_priority(config),
            folder=folder.replay.resolve(),
        )
        plans = with_shards(
            whole,
            section.actors or 1,
            section.replay_shards,
            lambda number: training.stream(f"replay {number}"),
        )
        local = partial(LocalHost, fetch=self._samplers.open)
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
        self._shards = replay
        return replay


def _learns_q(agent: Agent) -> bool:
    return isinstance(agent, QLearning)


def _priority(config: Config) -> PrioritySettings | None:
    learning = config.learning
    if not learning.prioritised:
        return None
    return PrioritySettings(exponent=learning.priority_exponent, epsilon=learning.priority_epsilon)


def _slack(config: Config) -> int:
    """Count the vector steps that may pass between two checkpoints, with room to spare."""
    environments = environments_in(config)
    wanted = math.ceil(config.training.checkpoint_every / environments)
    window = math.ceil(config.learning.replay_capacity / environments)
    return min(wanted + wanted // 4, window) + 2 * config.scale.fragment_steps + 16


def start(
    config: Config,
    path: Path | Callable[[], Path],
    listeners: Iterable[session.Listener] = (),
    *,
    address: str | None = None,
) -> Outcome:
    """Train a new run with sampler actors to its end; see `noisynet.training.train`.

    `address` is that of a Ray cluster; without one Ray runs on this machine, for as long as the
    run. Raises ScaleError, one line, where Ray is missing or has too few CPUs.
    """
    if isinstance(path, Path):
        # Before Ray starts, which takes seconds.
        RunFolder.check_free(path)
    with builder_for(config, address) as builder:
        return session.start(_with_threads(config, address), path, listeners, builder)


def resume(
    path: Path, listeners: Iterable[session.Listener] = (), *, address: str | None = None
) -> Outcome:
    """Go on with such a run; samplers start new games, with noise of their own."""
    config = _config_of(path)
    with builder_for(config, address) as builder:
        return session.resume(path, listeners, builder)


def train(
    config: Config,
    path: Path | Callable[[], Path],
    listeners: Iterable[session.Listener] = (),
    *,
    address: str | None = None,
) -> Generator[Event, None, Outcome]:
    """Train as `start` does, and yield what happens."""
    with builder_for(config, address) as builder:
        chosen = _with_threads(config, address)
        return (yield from session.train(chosen, path, listeners, builder))


def _config_of(path: Path) -> Config:
    folder = RunFolder.open(path)
    return run_config.from_yaml(folder.config_text, str(folder.config_file))


@contextmanager
def builder_for(config: Config, address: str | None) -> Iterator[WithSamplers]:
    """Connect to where samplers are to live, and end them all when it is left."""
    actors = config.scale.actors
    if actors is None:
        raise ScaleError("--actors: got none, expected how many samplers are to play")
    if config.scale.backend == "in-process":
        if address is not None:
            raise ScaleError(f"--ray: got {address!r}, expected none with --backend in-process")
        samplers = InProcessSamplers()
        builder = WithSamplers(samplers, partial(LocalHost, fetch=samplers.open))
        try:
            yield builder
        finally:
            builder.close()
        return
    with connect(address, cpus=actors):
        # Ray is an extra, and slow to import.
        from .ray_backend import RaySamplers, RayShard

        builder = WithSamplers(RaySamplers(), RayShard)
        try:
            yield builder
        finally:
            builder.close()


def _with_threads(config: Config, address: str | None) -> Config:
    """Leave a core to each sampler on this machine, where the config leaves threads open."""
    if config.training.threads or address is not None or config.scale.backend != "ray":
        return config
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return config.replaced(threads=max(cores - (config.scale.actors or 0), 1))
