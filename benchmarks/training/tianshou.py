"""Tianshou's DQN on Pong, behind Gymnasium's Atari wrappers, for run.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tianshou.algorithm import DQN
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, CollectStats, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.env.atari.atari_network import DQNet, ScaledObsInputActionReprNet
from tianshou.utils.torch_utils import policy_within_training_step

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
from .made_up import SHAPE

VECTOR_STEPS = 16  # collected at a time: a call of the collector costs about as much as one


class TianshouDQN(Contender):
    """Tianshou's DQN with ε-greedy; the environments step in this process, one after the other.

    The network is Tianshou's, and each frame is stored once, as in its example for Atari. Its own
    wrappers do not work with NumPy 2.4 (Tianshou 2.0.1).
    """

    def __init__(self, threads: int, *, environments: int) -> None:
        super().__init__(threads)
        torch.manual_seed(0)
        games = DummyVectorEnv([pong for _ in range(environments)])
        games.seed(0)
        action_space: Any = games.action_space[0]
        observation_space: Any = games.observation_space[0]
        self._network = ScaledObsInputActionReprNet(DQNet(*SHAPE, action_space.n))
        self._policy = DiscreteQLearningPolicy(
            model=self._network,
            action_space=action_space,
            observation_space=observation_space,
            eps_training=EPSILON,
        )
        self._algorithm = DQN(
            policy=self._policy,
            optim=AdamOptimizerFactory(lr=LEARNING_RATE),
            target_update_freq=TARGET_EVERY // STEPS_PER_UPDATE,
            is_double=False,
        )
        replay = VectorReplayBuffer(
            REPLAY, environments, stack_num=SHAPE[0], ignore_obs_next=True, save_only_last_obs=True
        )
        self._collector = Collector[CollectStats](
            self._policy, games, replay, exploration_noise=True
        )
        self._collector.reset()
        self._collector.collect(n_step=RANDOM_STEPS, random=True)
        self.steps = RANDOM_STEPS
        self._steps_at_a_time = VECTOR_STEPS * environments

    def train_until(self, done: Callable[[], bool]) -> None:
        """Alternate between some steps and the updates that are due until `done()` is true."""
        with policy_within_training_step(self._policy):
            while not done():
                self._collector.collect(n_step=self._steps_at_a_time)
                self.steps += self._steps_at_a_time
                for _ in range(self._steps_at_a_time // STEPS_PER_UPDATE):
                    self._algorithm.update(sample_size=BATCH, buffer=self._collector.buffer)
                    self.updates += 1

    def multiply_adds(self) -> int:
        """Count the multiply-adds of an update of plain DQN with this network."""
        return dqn_multiply_adds(lambda: self._network(torch.zeros(1, *SHAPE))[0], BATCH)
