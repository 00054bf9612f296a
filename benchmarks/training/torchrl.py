"""TorchRL's DQN on Pong, behind Gymnasium's Atari wrappers, for run.py."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

# The host warns of a target updated by hand when a loss is built before its updater.
os.environ.setdefault("RL_WARNINGS", "False")

import torch
from tensordict.nn import TensorDictSequential
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, ReplayBuffer
from torchrl.envs import GymWrapper, SerialEnv
from torchrl.modules import EGreedyModule, QValueActor
from torchrl.objectives import DQNLoss, HardUpdate

from ..hosts.images import frame_network
from .contender import (
    BATCH,
    EPSILON,
    LEARNING_RATE,
    RANDOM_STEPS,
    REPLAY,
    STEPS_PER_UPDATE,
    TARGET_EVERY,
    Contender,
)
from .floor import dqn_multiply_adds
from .game import pong
from .made_up import ACTIONS, SHAPE

VECTOR_STEPS = 16  # collected at a time


class TorchRLDQN(Contender):
    """TorchRL's DQN with ε-greedy; the environments step in this process, one after the other.

    TorchRL's own transforms turn frames into floats before they are stored, which takes four times
    the memory; with Gymnasium's wrappers, the stacks are stored as bytes.
    """

    def __init__(self, threads: int, *, environments: int) -> None:
        super().__init__(threads)
        torch.manual_seed(0)
        games = SerialEnv(environments, _pong)
        games.set_seed(0)
        spec = games.action_spec_unbatched
        self._network = frame_network(ACTIONS)
        actor = QValueActor(
            self._network, in_keys=["observation"], spec=spec, action_space="categorical"
        )
        self._loss = DQNLoss(actor, action_space="categorical", double_dqn=False)
        self._loss.make_value_estimator(gamma=0.99)
        self._target = HardUpdate(
            self._loss, value_network_update_interval=TARGET_EVERY // STEPS_PER_UPDATE
        )
        self._optimizer = torch.optim.Adam(self._loss.parameters(), lr=LEARNING_RATE)
        both: list[Any] = [actor, EGreedyModule(spec=spec, eps_init=EPSILON, eps_end=EPSILON)]
        self._replay = ReplayBuffer(storage=LazyTensorStorage(REPLAY), batch_size=BATCH)
        self._steps_at_a_time = VECTOR_STEPS * environments
        self._collected = iter(
            Collector(
                games,
                TensorDictSequential(*both),
                frames_per_batch=self._steps_at_a_time,
                total_frames=-1,
                init_random_frames=RANDOM_STEPS,
                auto_register_policy_transforms=False,
            )
        )

    def train_until(self, done: Callable[[], bool]) -> None:
        """Alternate between some steps and the updates that are due until `done()` is true."""
        while not done():
            collected: Any = next(self._collected)
            self._replay.extend(collected.reshape(-1))
            self.steps += self._steps_at_a_time
            if self.steps > RANDOM_STEPS:
                for _ in range(self._steps_at_a_time // STEPS_PER_UPDATE):
                    self._learn()

    def _learn(self) -> None:
        loss = self._loss(self._replay.sample())["loss"]
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._target.step()
        self.updates += 1

    def multiply_adds(self) -> int:
        """Count the multiply-adds of an update of plain DQN with this network."""
        return dqn_multiply_adds(
            lambda: self._network(torch.zeros(1, *SHAPE, dtype=torch.uint8)), BATCH
        )


def _pong() -> GymWrapper:
    return GymWrapper(pong(), categorical_action_encoding=True)
