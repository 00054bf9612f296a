"""The loop of a book, as a contender of run.py."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from .contender import (
    BATCH,
    EPSILON,
    LEARNING_RATE,
    RANDOM_STEPS,
    REPLAY,
    TARGET_EVERY,
    Contender,
)
from .floor import dqn_multiply_adds
from .game import pong
from .made_up import SHAPE


class BookLoop(Contender):
    """The loop of "Deep Reinforcement Learning Hands-On", chapter 8, written from its description.

    One environment behind Python wrappers, transitions as objects in a list, batches stacked by
    numpy, and one update for each step.
    """

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._game: Any = pong()
        self._replay: deque[tuple[Any, ...]] = deque(maxlen=REPLAY)
        self._network, self._target = self._build(), self._build()
        self._target.load_state_dict(self._network.state_dict())
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=LEARNING_RATE)
        self._generator = np.random.Generator(np.random.PCG64(0))
        self._observation, _ = self._game.reset(seed=0)

    def _build(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(),
            nn.Conv2d(64, 64, 3, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, int(self._game.action_space.n)),
        )  # fmt: skip

    def train_until(self, done: Callable[[], bool]) -> None:
        """Alternate between a step of play and an update until `done()` is true."""
        while True:
            self._play()
            if self.steps > RANDOM_STEPS:
                self._learn()
            if done():
                return

    def _play(self) -> None:
        epsilon = 1.0 if self.steps < RANDOM_STEPS else EPSILON
        if self._generator.random() < epsilon:
            action = int(self._generator.integers(self._game.action_space.n))
        else:
            with torch.no_grad():
                seen = torch.as_tensor(np.array(self._observation, np.float32)[None] / 255)
                action = int(self._network(seen).argmax())
        following, reward, terminated, truncated, _ = self._game.step(action)
        self._replay.append((self._observation, action, reward, terminated, following))
        self._observation = following
        if terminated or truncated:
            self._observation, _ = self._game.reset()
        self.steps += 1

    def _learn(self) -> None:
        chosen = self._generator.integers(len(self._replay), size=BATCH)
        before, action, reward, terminated, after = zip(
            *(self._replay[index] for index in chosen), strict=True
        )
        q = self._network(torch.as_tensor(np.array(before, np.float32) / 255))
        q_tm1 = q.gather(1, torch.tensor(action)[:, None]).squeeze(1)
        with torch.no_grad():
            q_t = self._target(torch.as_tensor(np.array(after, np.float32) / 255)).amax(1)
            q_t[torch.tensor(terminated)] = 0
            target = torch.tensor(reward, dtype=torch.float32) + 0.99 * q_t
        loss = nn.functional.mse_loss(q_tm1, target)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self.updates += 1
        if self.steps % TARGET_EVERY == 0:
            self._target.load_state_dict(self._network.state_dict())

    def multiply_adds(self) -> int:
        """Count the multiply-adds of an update of plain DQN with this network."""
        return dqn_multiply_adds(lambda: self._network(torch.zeros(1, *SHAPE)), BATCH)
