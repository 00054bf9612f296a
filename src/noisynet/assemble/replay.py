"""The replay that a config describes, in the folder of its run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..envs import Environments
from ..replay import FrameReplay, PrioritySettings, ReplayDamaged, slack_for
from ..replay.device import DeviceReplay
from ..runs.config import Config
from ..runs.errors import RunError, first_line
from ..runs.folder import RunFolder


def priority_settings(config: Config) -> PrioritySettings | None:
    """Return how priorities depend on TD errors; None if draws are uniform."""
    learning = config.learning
    if not learning.prioritised:
        return None
    return PrioritySettings(exponent=learning.priority_exponent, epsilon=learning.priority_epsilon)


def build_replay(config: Config, environments: Environments, folder: RunFolder) -> FrameReplay:
    """Build an empty replay; raises RunError, with a message of one line, if that fails."""
    try:
        replay = FrameReplay(
            capacity=config.learning.replay_capacity,
            environments=environments.count,
            frame_shape=environments.frame_shape,
            frame_dtype=environments.observation_dtype,
            stack=environments.stack,
            slack=slack_of(config),
            folder=folder.replay,
            seed=config.training.stream("replay"),
            priority=priority_settings(config),
        )
        replay.can_sample(config.learning.n_step)
    except ValueError as error:
        raise RunError(f"--replay-capacity, --n-step: {error}") from error
    except OSError as error:
        raise RunError(f"{folder.replay}: {error.strerror or error}") from error
    return _placed(config, replay)


def reopen_replay(config: Config, folder: RunFolder, saved: Mapping[str, Any]) -> FrameReplay:
    """Reopen the replay of a checkpoint; raises RunError if it is damaged or does not fit."""
    if ("priorities" in saved) != config.learning.prioritised:
        raise RunError(
            f"{folder.replay}: {'with' if 'priorities' in saved else 'without'} priorities, and "
            f"prioritised is {config.learning.prioritised}"
        )
    try:
        replay = FrameReplay.reopen(folder.replay, saved)
        replay.can_sample(config.learning.n_step)
    except ReplayDamaged as error:
        raise RunError(f"{folder.replay}: {error}") from error
    except ValueError as error:
        raise RunError(f"n_step: {error}") from error
    except OSError as error:
        raise RunError(f"{folder.replay}: {error.strerror or error}") from error
    return _placed(config, replay)


def _placed(config: Config, replay: FrameReplay) -> FrameReplay:
    """Return the replay, with its frames on the device if the config says so."""
    if config.learning.replay_device != "device":
        return replay
    try:
        return DeviceReplay(replay, torch.device(config.training.device))
    except RuntimeError as error:
        reason = first_line(error)
        raise RunError(f"--replay-device: got device, which has no room: {reason}") from error


def slack_of(config: Config) -> int:
    """Return the vector steps that may pass between two checkpoints, with room to spare.

    With samplers, a vector step covers all their environments, and fragments in flight are added.
    """
    scale = config.scale
    slack = slack_for(
        capacity=config.learning.replay_capacity,
        environments=config.environment.environments * (scale.actors or 1),
        commit_every=config.training.checkpoint_every,
    )
    return slack if scale.actors is None else slack + 2 * scale.fragment_steps
