"""Stable-Baselines3's agents, as run.py measures them."""

from __future__ import annotations

from typing import Any

import torch
from sb3_contrib import QRDQN
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import LinearSchedule

from noisynet.integrations.sb3 import (
    NoisyA2CPolicy,
    NoisyDQNPolicy,
    NoisyPPOPolicy,
    NoisyQRDQNPolicy,
)

PACKAGES = ("stable-baselines3", "sb3-contrib", "gymnasium")

_CLASSES: dict[str, tuple[Any, Any]] = {
    "dqn": (DQN, NoisyDQNPolicy),
    "qrdqn": (QRDQN, NoisyQRDQNPolicy),
    "ppo": (PPO, NoisyPPOPolicy),
    "a2c": (A2C, NoisyA2CPolicy),
}
_NO_EPSILON = {"exploration_initial_eps": 0.0, "exploration_final_eps": 0.0}
# As in noisynet's preset `cartpole`. Every seed must learn, not only the best of several.
_REPLAY: dict[str, Any] = {
    "batch_size": 128,
    "buffer_size": 50_000,
    "learning_starts": 1000,
    "n_steps": 10,
    "target_update_interval": 500,
    "train_freq": 1,
    "gradient_steps": 2,
    **_NO_EPSILON,
}
_NETWORK: dict[str, Any] = {"net_arch": [128, 128], "sigma0": 0.2}
# From the host's RL Zoo, for PPO, with a constant learning rate and clipping range.
CARTPOLE: dict[str, Any] = {
    "n_steps": 32,
    "batch_size": 256,
    "n_epochs": 20,
    "gae_lambda": 0.8,
    "gamma": 0.98,
    "learning_rate": 1e-3,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "dqn": {
        "steps": 80_000,
        "environments": 8,
        "learning_rate": [1e-3, 1e-4],
        "options": {**_REPLAY, "policy_kwargs": _NETWORK},
    },
    "qrdqn": {
        "steps": 80_000,
        "environments": 8,
        "learning_rate": [1e-3, 1e-4],
        "options": {**_REPLAY, "policy_kwargs": {**_NETWORK, "n_quantiles": 10}},
    },
    "ppo": {
        "steps": 80_000,
        "environments": 8,
        "options": {**CARTPOLE, "ent_coef": 0.0, "policy_kwargs": {"noise_in": "last"}},
    },
    "a2c": {
        "steps": 400_000,
        "environments": 8,
        "options": {"ent_coef": 0.0, "policy_kwargs": {"noise_in": "last"}},
    },
}
TIMED_STEPS = {"vector": 2048, "image": 256}


def play_trained(algorithm: str, seed: int, games: int) -> list[float]:
    """Train CartPole by noise alone; return the returns of games with the mean weights."""
    torch.set_num_threads(1)
    model = build(algorithm, seed)
    model.learn(SETTINGS[algorithm]["steps"])
    return play(model, seed, games)


def build(algorithm: str, seed: int) -> Any:
    """Build the noisy agent for CartPole."""
    settings = SETTINGS[algorithm]
    kind, policy = _CLASSES[algorithm]
    environments = make_vec_env("CartPole-v1", settings["environments"], seed=seed)
    return kind(policy, environments, seed=seed, device="cpu", **_options(algorithm))


def _options(algorithm: str) -> dict[str, Any]:
    """Return the host's options; a pair of learning rates is a linear schedule over the run."""
    settings = SETTINGS[algorithm]
    options = dict(settings["options"])
    if "learning_rate" in settings:
        first, last = settings["learning_rate"]
        options["learning_rate"] = LinearSchedule(first, last, 1.0)
    return options


def play(model: Any, seed: int, games: int) -> list[float]:
    """Play games with the mean weights, in environments that training did not see."""
    environments = make_vec_env("CartPole-v1", 10, seed=10_000 + seed)
    returns, _ = evaluate_policy(
        model, environments, games, deterministic=True, return_episode_rewards=True
    )
    assert isinstance(returns, list)
    return [float(one) for one in returns]


class Timed:
    """An agent that continues where it stopped."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def run(self, steps: int) -> None:
        """Continue acting and learning for this many agent steps."""
        self._model.learn(steps, reset_num_timesteps=False)


def agent(algorithm: str, *, noisy: bool, observations: str) -> Timed:
    """Build the noisy agent or the host's own, which has ε = 0.05 or an entropy bonus of 0.01.

    Both act and learn equally often, on batches of the same size. Vectors are CartPole's, with the
    settings above; images are 84 × 84 × 4, with the host's convolutional network and its own
    settings, except for the replay's size and PPO's rollouts, batches and epochs.
    """
    torch.set_num_threads(1)
    kind, policy = _CLASSES[algorithm]
    replays = algorithm in ("dqn", "qrdqn")
    options: dict[str, Any] = {}
    if observations == "vector":
        settings = SETTINGS[algorithm]
        options = _options(algorithm)
        environments = make_vec_env("CartPole-v1", settings["environments"], seed=0)
    else:
        if replays:
            options = {**_NO_EPSILON, "buffer_size": 2000, "train_freq": 4, "batch_size": 32}
        elif algorithm == "ppo":
            options = {"n_steps": TIMED_STEPS["image"] // 2, "batch_size": 64, "n_epochs": 4}
        environments = make_vec_env(_images, 2)
    if not noisy:
        policy = "MlpPolicy" if observations == "vector" else "CnnPolicy"
        rate = {"exploration_initial_eps": 0.05, "exploration_final_eps": 0.05}
        options |= rate if replays else {"ent_coef": 0.01}
        if "policy_kwargs" in options:
            kwargs = options["policy_kwargs"].items()
            noise = ("sigma0", "noise_in")
            options["policy_kwargs"] = {name: value for name, value in kwargs if name not in noise}
    return Timed(kind(policy, environments, seed=0, device="cpu", **options))


def _images() -> FakeImageEnv:
    return FakeImageEnv(screen_height=84, screen_width=84, n_channels=4, discrete=True)
