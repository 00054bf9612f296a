"""Observations of Atari's size, and DQN's convolutions for them, for timing the hosts' agents."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import nn


class Images(gymnasium.Env[np.ndarray, np.int64]):
    """Games of 100 steps with frames of 4 × 84 × 84 bytes, or of 84 × 84 × 4 floats from 0 to 1."""

    action_space = spaces.Discrete(6)

    def __init__(self, *, channels_last: bool = False) -> None:
        self._channels_last = channels_last
        self.observation_space = (
            spaces.Box(0.0, 1.0, (84, 84, 4), np.float32)
            if channels_last
            else spaces.Box(0, 255, (4, 84, 84), np.uint8)
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a game."""
        super().reset(seed=seed, options=options)
        self._steps = 0
        frame = self.np_random.integers(0, 256, (4, 84, 84), np.uint8)
        if self._channels_last:
            frame = (frame.transpose(1, 2, 0) / 255).astype(np.float32)
        self._frame = frame
        return self._frame, {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Return the same frame again: drawing a new one is not part of an agent's work."""
        self._steps += 1
        return self._frame, float(action == 0), self._steps >= 100, False, {}


class Scaled(nn.Module):
    """Bytes as floats from 0 to 1."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Scale (…, C, H, W)."""
        return frames.float() / 255


def frame_network(outputs: int) -> nn.Sequential:
    """Build DQN's network (Mnih et al. 2015) for frames (…, 4, 84, 84) of bytes."""
    return nn.Sequential(
        Scaled(),
        nn.Conv2d(4, 32, 8, 4),
        nn.ReLU(),
        nn.Conv2d(32, 64, 4, 2),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3),
        nn.ReLU(),
        nn.Flatten(-3),
        nn.Linear(3136, 512),
        nn.ReLU(),
        nn.Linear(512, outputs),
    )
