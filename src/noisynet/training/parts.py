"""Put the parts of a run together: environments, agent, loop, and what else is to be saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ..agents import (
    ActorCritic,
    Agent,
    QLearning,
    build_agent,
    make_environments,
    measure_frames,
)
from ..envs import Environments, UnusableEnvironment
from ..replay import FrameReplay, PrioritySettings, ReplayDamaged
from ..replay.device import DeviceReplay
from ..runs.checkpoint import Checkpoint
from ..runs.config import Config
from ..runs.errors import RunError
from ..runs.folder import RunFolder
from .asynchronous import AsynchronousLoop
from .events import Event
from .loop import TrainingLoop, replay_slack
from .rollout_loop import RolloutLoop


class Loop(Protocol):
    """Train an agent and tell what happens: what a session drives."""

    config: Config
    step: int

    @property
    def agent(self) -> Agent:
        """Give what is trained."""
        ...

    @property
    def mean_return(self) -> float | None:
        """Mean return of the last games; None before the first."""
        ...

    def run(self) -> Iterator[Event]:
        """Train until the end, yielding events; TrainingEnded is the last."""
        ...

    def stop(self) -> None:
        """Ask for an orderly end, soon."""
        ...

    def state(self) -> dict[str, Any]:
        """Give what a resumed run needs, as plain JSON values."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        ...


@dataclass(frozen=True)
class Parts:
    """A loop, and the replay that is to be committed with it where it has one."""

    loop: Loop
    replay: FrameReplay | None = None

    def commit(self) -> dict[str, Any]:
        """Bring to the disk what does not stand in a checkpoint; give what refers to it."""
        return {} if self.replay is None else {"replay": self.replay.commit()}


class PartsBuilder(Protocol):
    """Build a run's parts: in this process, or in many."""

    def new(self, config: Config, environments: Environments, folder: RunFolder) -> Parts:
        """Build everything for a run that begins."""
        ...

    def restored(
        self, config: Config, environments: Environments, folder: RunFolder, found: Checkpoint
    ) -> Parts:
        """Build everything for a run that goes on; raises RunError for what does not fit."""
        ...


class OwnProcess:
    """Build a run that plays in this process, or in a3c's workers."""

    def new(self, config: Config, environments: Environments, folder: RunFolder) -> Parts:
        """Build everything for a run that begins."""
        _refuse_actors(config)
        return new_parts(config, environments, folder)

    def restored(
        self, config: Config, environments: Environments, folder: RunFolder, found: Checkpoint
    ) -> Parts:
        """Build everything for a run that goes on; raises RunError for what does not fit."""
        _refuse_actors(config)
        return restored_parts(config, environments, folder, found)


def _refuse_actors(config: Config) -> None:
    if config.scale.actors is not None:
        raise RunError(
            f"--actors: got {config.scale.actors}, expected none here: `noisynet train` and "
            "`noisynet.samplers.actors` train with sampler actors"
        )


@contextmanager
def environments_of(config: Config, seed: int | None = None) -> Iterator[Environments]:
    """Make the environments, and close them at the end; raises RunError where it cannot."""
    torch.set_num_threads(config.training.threads or torch.get_num_threads())
    try:
        environments = make_environments(config, seed=seed)
    except UnusableEnvironment as error:
        raise RunError(str(error)) from error
    try:
        yield environments
    finally:
        environments.close()


def agent_for(config: Config, environments: Environments) -> Agent:
    """Build the agent; raises RunError where no network takes the observations."""
    try:
        return build_agent(config, environments.observation_shape, environments.action_count)
    except (ValueError, RuntimeError) as error:
        raise RunError(f"{environments.id}: {str(error).splitlines()[0]}") from error


def new_agent(config: Config, environments: Environments) -> Agent:
    """Build the agent of a run that begins; raises RunError as `agent_for` does.

    A run that goes on has in its checkpoint what is measured here.
    """
    agent = agent_for(config, environments)
    try:
        measure_frames(config, agent)
    except ValueError as error:
        raise RunError(f"{environments.id}: {error}") from error
    return agent


def new_parts(config: Config, environments: Environments, folder: RunFolder) -> Parts:
    """Build everything for a run that begins."""
    agent = new_agent(config, environments)
    replay = _new_replay(config, environments, folder) if isinstance(agent, QLearning) else None
    return Parts(_loop(config, environments, agent, replay), replay)


def restored_parts(
    config: Config, environments: Environments, folder: RunFolder, found: Checkpoint
) -> Parts:
    """Build everything for a run that goes on; raises RunError for what does not fit."""
    agent = agent_for(config, environments)
    try:
        agent.restore(found.arrays, found.state["agent"])
        replay = None
        if isinstance(agent, QLearning):
            replay = _placed(config, FrameReplay.reopen(folder.replay, found.state["replay"]))
        loop = _loop(config, environments, agent, replay)
        loop.restore(found.state["loop"])
    except ReplayDamaged as error:
        raise RunError(f"{folder.replay}: {error}") from error
    except OSError as error:
        raise RunError(f"{folder.replay}: {error.strerror or error}") from error
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        what = str(error).splitlines()[0]
        raise RunError(f"{folder.path}: its checkpoint does not fit its config: {what}") from error
    return Parts(loop, replay)


def _loop(
    config: Config, environments: Environments, agent: Agent, replay: FrameReplay | None
) -> Loop:
    if isinstance(agent, ActorCritic):
        if config.learning.algorithm == "a3c":
            return AsynchronousLoop(config, agent, environments.observation_shape)
        return RolloutLoop(config, environments, agent)
    assert replay is not None, "q_learning has a replay"
    return TrainingLoop(config, environments, agent, replay)


def _priority(config: Config) -> PrioritySettings | None:
    learning = config.learning
    if not learning.prioritised:
        return None
    return PrioritySettings(exponent=learning.priority_exponent, epsilon=learning.priority_epsilon)


def _new_replay(config: Config, environments: Environments, folder: RunFolder) -> FrameReplay:
    shape = environments.observation_shape
    try:
        replay = FrameReplay(
            capacity=config.learning.replay_capacity,
            environments=environments.count,
            frame_shape=shape[1:] if environments.stack > 1 else shape,
            frame_dtype=environments.observation_dtype,
            stack=environments.stack,
            slack=replay_slack(config),
            folder=folder.replay,
            seed=config.training.stream("replay"),
            priority=_priority(config),
        )
        replay.can_sample(config.learning.n_step)
    except ValueError as error:
        raise RunError(f"--replay-capacity, --n-step: {error}") from error
    except OSError as error:
        raise RunError(f"{folder.replay}: {error.strerror or error}") from error
    return _placed(config, replay)


def _placed(config: Config, replay: FrameReplay) -> FrameReplay:
    """Give the replay, its frames on the device where they are to be there."""
    if config.learning.replay_device != "device":
        return replay
    try:
        return DeviceReplay(replay, torch.device(config.training.device))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"--replay-device: got device, which has no room: {reason}") from error
