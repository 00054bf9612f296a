"""Checks that a run fits into memory before it is built: a mistyped digit gives a plain error."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ..envs import Environments
from ..runs.config import Config
from ..runs.errors import RunError

_COPIES = 4
"""Copies of each parameter: online and target net, and an optimizer's two moments."""


def check_frames(config: Config) -> None:
    """Raise RunError if Atari frames do not fit into memory; to be called before they are made."""
    section = config.environment
    if section.is_atari:
        shape = (section.frame_stack, section.frame_height, section.frame_width)
        needed = _observations(config, math.prod(shape))
        _refuse_beyond(
            needed,
            f"--frame-stack, --frame-height, --frame-width: got {' × '.join(map(str, shape))}",
        )


def check_network(config: Config, environments: Environments) -> None:
    """Raise RunError if the observations and the head's weights do not fit into memory."""
    shape, actions = environments.observation_shape, environments.action_count
    bytes_each = math.prod(shape) * np.dtype(environments.observation_dtype).itemsize
    outputs = actions * max(config.network.atoms, 1)
    inputs = math.prod(shape) if len(shape) == 1 else 0  # convolutions shrink what images have
    weights = config.network.head_hidden * (inputs + outputs)
    sigma = 2 if config.exploration.has_noise else 1
    needed = _observations(config, bytes_each) + 4 * sigma * _COPIES * weights
    _refuse_beyond(
        needed,
        f"{environments.id}: got observations of {' × '.join(map(str, shape))} and "
        f"{actions:,} actions with --head-hidden {config.network.head_hidden:,}",
    )


def _observations(config: Config, bytes_each: int) -> int:
    """Return roughly how many bytes of observations are in memory at a time."""
    environments = config.environment.environments
    if not config.learning.has_replay:
        # pqn also keeps the observations in the form that its torso takes.
        copies = 5 if config.learning.algorithm == "pqn" else 1
        return copies * bytes_each * environments * (config.rollouts.rollout_steps + 2)
    return bytes_each * (2 * environments + 2 * config.learning.batch_size)


def _refuse_beyond(needed: int, what: str) -> None:
    free = free_memory()
    if free is not None and needed > free:
        raise RunError(
            f"{what}, which takes {needed / 1e9:,.1f} GB of memory, expected at most "
            f"{free / 1e9:,.1f} GB, which is free"
        )


def free_memory() -> int | None:
    """Return the bytes of free memory; None if the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next(
        (1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None
    )
