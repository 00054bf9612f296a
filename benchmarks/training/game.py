"""Pong behind Gymnasium's Atari wrappers, for the contenders that have none of their own."""

from __future__ import annotations

from typing import Any

import ale_py
import gymnasium
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

from .made_up import SHAPE


def pong() -> gymnasium.Env[Any, Any]:
    """Make a game whose observations are stacks of frames, (4, 84, 84) bytes."""
    gymnasium.register_envs(ale_py)
    game: Any = gymnasium.make("PongNoFrameskip-v4")
    return FrameStackObservation(AtariPreprocessing(game), SHAPE[0])
