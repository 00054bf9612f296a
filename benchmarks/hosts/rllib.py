"""RLlib's agents, as run.py measures them: the new API stack, everything in one process."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import torch
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from noisynet.integrations.rllib import add_noise

from .images import Images

PACKAGES = ("ray", "gymnasium")

_CONFIGS: dict[str, Any] = {"dqn": DQNConfig, "ppo": PPOConfig}
SETTINGS: dict[str, dict[str, Any]] = {
    # As in this project's presets for CartPole, except for n-step returns: the host's replay does
    # not sample windows that cross an episode's end, and with n = 10 a weak agent's short games
    # would have none.
    "dqn": {
        "steps": 80_000,
        "environments": 4,
        "noise": {"sigma0": 0.2, "noise_in": "head"},
        "training": {
            "epsilon": 0.0,
            "lr": [[0, 1e-3], [80_000, 1e-4]],
            "train_batch_size_per_learner": 128,
            "num_steps_sampled_before_learning_starts": 1000,
            "target_network_update_freq": 500,
            "n_step": 1,
            "double_q": True,
            "dueling": False,
            "replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": 50_000},
        },
        "model": {
            "fcnet_hiddens": [128],
            "fcnet_activation": "relu",
            "head_fcnet_hiddens": [128],
        },
    },
    "ppo": {
        "steps": 120_000,
        "environments": 8,
        "noise": {"sigma0": 0.5, "noise_in": "last"},
        "training": {
            "entropy_coeff": 0.0,
            "lr": [[0, 1e-3], [120_000, 1e-5]],
            "train_batch_size_per_learner": 1024,
            "minibatch_size": 256,
            "num_epochs": 10,
            "lambda_": 0.95,
            "gamma": 0.98,
            "vf_clip_param": 10_000.0,
        },
        "model": {"fcnet_hiddens": [64, 64]},
    },
}
TIMED_STEPS = {"vector": 2048, "image": 256}

# Instead of CartPole's, with DQN's network for frames; the host expects channels last.
_IMAGES: dict[str, dict[str, Any]] = {
    "dqn": {
        "train_batch_size_per_learner": 32,
        "num_steps_sampled_before_learning_starts": 100,
        "replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": 2000},
    },
    "ppo": {"train_batch_size_per_learner": 256, "minibatch_size": 64, "num_epochs": 4},
}
_IMAGE_MODEL: dict[str, Any] = {
    "conv_filters": [[32, 8, 4], [64, 4, 2], [64, 3, 1]],
    "conv_activation": "relu",
    "head_fcnet_hiddens": [512],
    "head_fcnet_activation": "relu",
}


def play_trained(algorithm: str, seed: int, games: int) -> list[float]:
    """Train CartPole by noise alone; return the returns of games with the mean weights."""
    agent = build(algorithm, seed)
    agent.run(SETTINGS[algorithm]["steps"])
    returns = play(agent, seed, games)
    agent.stop()
    return returns


class _Images(Images):
    """The environment of frames, for the host to build from the class and a config."""

    def __init__(self, _: Any) -> None:
        super().__init__(channels_last=True)


class Trained:
    """An agent that continues where it stopped."""

    def __init__(self, algorithm: Any) -> None:
        self.algorithm = algorithm
        self._steps = 0

    def run(self, steps: int) -> None:
        """Continue acting and learning for this many agent steps."""
        goal = self._steps + steps
        while self._steps < goal:
            result = self.algorithm.train()
            self._steps = int(result["num_env_steps_sampled_lifetime"])

    def stop(self) -> None:
        """Release what the algorithm holds."""
        self.algorithm.stop()


def build(algorithm: str, seed: int, *, noisy: bool = True, images: bool = False) -> Trained:
    """Build the noisy agent, or the host's own with ε = 0.05 or a bonus of 0.01."""
    torch.set_num_threads(1)
    settings = SETTINGS[algorithm]
    training = {**settings["training"], **(_IMAGES[algorithm] if images else {})}
    model = _IMAGE_MODEL if images else settings["model"]
    config = (
        _CONFIGS[algorithm]()
        .environment(_Images if images else "CartPole-v1")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=settings["environments"])
        .training(**training)
        .rl_module(model_config=DefaultModelConfig(**model))
        .debugging(seed=seed, log_level="ERROR")
        # One report for many updates: reports cost more than an update of this size.
        .reporting(
            min_time_s_per_iteration=0,
            min_sample_timesteps_per_iteration=TIMED_STEPS["image"] if images else 1024,
        )
    )
    if noisy:
        add_noise(config, **settings["noise"])
    else:
        config.training(**({"epsilon": 0.05} if algorithm == "dqn" else {"entropy_coeff": 0.01}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return Trained(config.build_algo())


def play(agent: Trained, seed: int, games: int) -> list[float]:
    """Play games with the mean weights, in environments that training did not see."""
    module = agent.algorithm.get_module()
    # Only the first game of each environment counts.
    environments = gymnasium.make_vec("CartPole-v1", games, vectorization_mode="sync")
    observation, _ = environments.reset(seed=10_000 + seed)
    total, playing = np.zeros(games), np.ones(games, bool)
    while playing.any():
        output = module.forward_inference({Columns.OBS: torch.from_numpy(observation)})
        if Columns.ACTIONS in output:
            action = output[Columns.ACTIONS]
        else:
            action = output[Columns.ACTION_DIST_INPUTS].argmax(-1)
        observation, reward, terminated, truncated, _ = environments.step(action.numpy())
        total += np.where(playing, reward, 0.0)
        playing &= ~(terminated | truncated)
    environments.close()
    return [float(one) for one in total]


def agent(algorithm: str, *, noisy: bool, observations: str) -> Trained:
    """Build the noisy agent or the host's own: for CartPole's vectors, or for 84 × 84 × 4."""
    return build(algorithm, 0, noisy=noisy, images=observations == "image")
