"""Games that end at once, for the trainings of others that stop by steps or returns."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class OneStep(gymnasium.Env[np.ndarray, np.int64]):
    """Games of one step, seen as a stack of four frames, that return what they are told."""

    action_space = spaces.Discrete(6)
    observation_space = spaces.Box(0, 255, (84, 84, 4), np.uint8)

    def __init__(self, score: float) -> None:
        self.score = score

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        return np.zeros((84, 84, 4), np.uint8), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros((84, 84, 4), np.uint8), self.score, True, False, {}
