"""A batch of random transitions of Pong, for timing updates without a game."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

SHAPE, ACTIONS = (4, 84, 84), 6


class MadeUp:
    """Random transitions: numpy arrays, or tensors on a device where one is given."""

    weights = None

    def __init__(self, size: int, device: str | None = None) -> None:
        generator = np.random.Generator(np.random.PCG64(0))

        def placed(array: np.ndarray) -> Any:
            return array if device is None else torch.from_numpy(array).to(device)

        self.observation_tm1 = placed(generator.integers(0, 256, (size, *SHAPE), np.uint8))
        self.observation_t = placed(generator.integers(0, 256, (size, *SHAPE), np.uint8))
        self.action_tm1 = placed(generator.integers(ACTIONS, size=size))
        self.return_t = placed(np.ones(size, np.float32))
        self.discount_t = placed(np.full(size, 0.99, np.float32))
