"""Stable-Baselines3's DQN and PPO on Pong, behind its own Atari wrappers, for run.py."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import ale_py
import gymnasium
import torch
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

import noisynet

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
from .floor import count, dqn_multiply_adds
from .made_up import SHAPE

# "atari" in hyperparams/ppo.yml of DLR-RM/rl-baselines3-zoo, commit 00128b5. A pair is a value that
# falls linearly over ZOO_STEPS. The zoo has 8 environments, with AtariWrapper and 4 frames stacked.
ZOO_PPO: dict[str, Any] = {
    "n_steps": 128,
    "n_epochs": 4,
    "batch_size": 256,
    "learning_rate": [2.5e-4, 0.0],
    "clip_range": [0.1, 0.0],
    "vf_coef": 0.5,
    "ent_coef": 0.01,
}
ZOO_STEPS = 10_000_000


def pong(environments: int, seed: int = 0) -> VecEnv:
    """Make environments of Pong as the host's zoo does: they step one after the other."""
    gymnasium.register_envs(ale_py)
    return VecFrameStack(make_atari_env("PongNoFrameskip-v4", environments, seed=seed), 4)


def ppo(games: VecEnv, seed: int = 0) -> PPO:
    """Build PPO with the zoo's settings for Atari, its policy the host's Nature CNN."""
    options: dict[str, Any] = {
        name: LinearSchedule(one[0], one[1], 1.0) if isinstance(one, list) else one
        for name, one in ZOO_PPO.items()
    }
    return PPO("CnnPolicy", games, device="cpu", seed=seed, **options)


class StableDQN(Contender):
    """Stable-Baselines3's DQN, with its own ε-greedy or with our noise."""

    def __init__(self, threads: int, *, environments: int, noisy: bool) -> None:
        super().__init__(threads)
        policy: Any = "CnnPolicy"
        explores: dict[str, Any] = {
            "exploration_fraction": 1e-6,
            "exploration_final_eps": EPSILON,
        }
        if noisy:
            from noisynet.integrations.sb3 import NoisyDQNPolicy

            policy = NoisyDQNPolicy
            explores = {"exploration_initial_eps": 0.0, "exploration_final_eps": 0.0}
        # With 8 environments, there are two updates after each vector step.
        every, gradient_steps = STEPS_PER_UPDATE, 1
        if environments > 1:
            every, gradient_steps = 1, environments // STEPS_PER_UPDATE
        self._model = DQN(
            policy, pong(environments), learning_rate=LEARNING_RATE, buffer_size=REPLAY,
            learning_starts=RANDOM_STEPS, batch_size=BATCH, train_freq=every,
            gradient_steps=gradient_steps, target_update_interval=TARGET_EVERY, device="cpu",
            seed=0, **explores,
        )  # fmt: skip

    def train_until(self, done: Callable[[], bool]) -> None:
        """Train until the callback ends it."""
        self._model.learn(10**9, callback=_StepReferee(done, self), reset_num_timesteps=False)

    def multiply_adds(self) -> int:
        """Count the multiply-adds of an update of plain DQN with the network's mean weights."""
        network: Any = noisynet.denoise(copy.deepcopy(self._model.q_net))
        return dqn_multiply_adds(
            lambda: network(torch.zeros(1, *SHAPE, dtype=torch.uint8)), self.batch
        )


class StablePPO(Contender):
    """Stable-Baselines3's PPO, with the zoo's settings for Atari."""

    batch = ZOO_PPO["batch_size"]

    def __init__(self, threads: int, *, games: Callable[[], VecEnv]) -> None:
        super().__init__(threads)
        self.model = ppo(games())

    def train_until(self, done: Callable[[], bool]) -> None:
        """Train in whole iterations, each a rollout with its updates, until `done()` is true."""
        # As many steps as in the zoo, so that the schedules are the same.
        left = ZOO_STEPS - self.model.num_timesteps
        self.model.learn(left, callback=_IterationReferee(done, self), reset_num_timesteps=False)

    def multiply_adds(self) -> int:
        """Count the multiply-adds of policy and value, forward and backward."""
        policy = self.model.policy
        seen = torch.zeros(1, *SHAPE, dtype=torch.uint8)

        def outputs() -> torch.Tensor:
            value, log_probability, _ = policy.evaluate_actions(seen, torch.zeros(1))
            return value.sum() + log_probability.sum()

        products = count(outputs)
        return self.batch * (products.forward + products.backward)


class _StepReferee(BaseCallback):
    """A callback that counts steps and updates, and can end the training after any step."""

    def __init__(self, done: Callable[[], bool], owner: StableDQN) -> None:
        super().__init__()
        self.done, self.owner = done, owner

    def _on_step(self) -> bool:
        self.owner.steps = self.num_timesteps
        self.owner.updates = vars(self.model)["_n_updates"]
        return not self.done()


class _IterationReferee(BaseCallback):
    """A callback that counts whole iterations, and ends the training between two of them.

    The host checks only at a step whether to end, so the first step of an iteration is wasted.
    """

    def __init__(self, done: Callable[[], bool], owner: StablePPO) -> None:
        super().__init__()
        self.done, self.owner = done, owner
        self._iteration_over = False

    def _on_rollout_start(self) -> None:
        model = self.owner.model
        samples = model.n_steps * model.n_envs
        # The host counts epochs as updates.
        self.owner.updates = vars(model)["_n_updates"] * samples // self.owner.batch
        self.owner.steps = model.num_timesteps
        self._iteration_over = True

    def _on_step(self) -> bool:
        over, self._iteration_over = self._iteration_over, False
        return not (over and self.done())
