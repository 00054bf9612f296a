"""Ways to explore in Stable-Baselines3: continuous actions, memory, and on-policy agents.

    python -m benchmarks.hosts.exploring --algorithm td3 --machine "…"

times learned noise and the host's own exploration in turns, as run.py does. What each way learns
is compared in ../study/exploring.py. The MuJoCo tasks need `pip install 'gymnasium[mujoco]'
'mujoco<4'`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3 import A2C, PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise

from noisynet.integrations.sb3 import (
    NoiseControl,
    NoisyA2CPolicy,
    NoisyPPOPolicy,
    NoisyRecurrentPPO,
    NoisyRecurrentPPOPolicy,
    NoisyRolloutBuffer,
    NoisySACPolicy,
    NoisyTD3Policy,
)

from .run import context, keep, measure_overhead
from .sb3 import CARTPOLE, Timed
from .sb3 import PACKAGES as PACKAGES

DEVIATION = 0.1
"""Standard deviation of the host's Gaussian and OU noise, and the target of the adaptive one."""

Options = dict[str, Any]


class WithoutVelocities(gymnasium.ObservationWrapper[Any, Any, Any]):
    """CartPole that shows position and angle, so that an agent needs a memory."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Return position and angle."""
        return observation[[0, 2]]


@dataclass(frozen=True)
class Task:
    """An environment, the agent that plays it, and for how long."""

    environment: str
    algorithm: str
    steps: int
    options: Options = field(default_factory=dict)
    environments: int = 1
    wrapper: Callable[[gymnasium.Env[Any, Any]], gymnasium.Env[Any, Any]] | None = None

    @property
    def is_mujoco(self) -> bool:
        """Whether MuJoCo simulates it."""
        return self.environment.startswith(("HalfCheetah", "Hopper"))


# The network of SAC's paper for all, so that arms and tasks differ in nothing else.
_REPLAY: Options = {"learning_starts": 1000, "policy_kwargs": {"net_arch": [256, 256]}}
# On-policy agents have the settings of the host's RL Zoo, which for A2C are the host's defaults.
# Its falling learning rates and clipping ranges, and its normalised observations, are left out.
_MEMORY: Options = {
    **CARTPOLE,
    "policy_kwargs": {"lstm_hidden_size": 64, "enable_critic_lstm": True},
}
_PPO: Options = {"n_steps": 1024, "gae_lambda": 0.95, "gamma": 0.9, "learning_rate": 1e-3}
_ACROBOT: Options = {"n_steps": 256, "n_epochs": 4, "gae_lambda": 0.94}
TASKS = {
    "Pendulum, TD3": Task("Pendulum-v1", "td3", 20_000, _REPLAY),
    "Pendulum, SAC": Task("Pendulum-v1", "sac", 20_000, _REPLAY),
    "Pendulum, PPO": Task("Pendulum-v1", "ppo", 100_000, _PPO, environments=4),
    "MountainCar, TD3": Task("MountainCarContinuous-v0", "td3", 50_000, _REPLAY),
    "MountainCar, SAC": Task("MountainCarContinuous-v0", "sac", 50_000, _REPLAY),
    "HalfCheetah, TD3": Task("HalfCheetah-v5", "td3", 100_000, _REPLAY),
    "HalfCheetah, SAC": Task("HalfCheetah-v5", "sac", 100_000, _REPLAY),
    "Hopper, TD3": Task("Hopper-v5", "td3", 100_000, _REPLAY),
    "Hopper, SAC": Task("Hopper-v5", "sac", 100_000, _REPLAY),
    "CartPole without velocities, RecurrentPPO": Task(
        "CartPole-v1", "recurrent", 100_000, _MEMORY, environments=8, wrapper=WithoutVelocities
    ),
    "CartPole, PPO": Task("CartPole-v1", "discrete ppo", 60_000, CARTPOLE, environments=8),
    "CartPole, A2C": Task("CartPole-v1", "a2c", 100_000, environments=8),
    "Acrobot, PPO": Task("Acrobot-v1", "discrete ppo", 200_000, _ACROBOT, environments=16),
    "Acrobot, A2C": Task("Acrobot-v1", "a2c", 200_000, environments=16),
}


@dataclass(frozen=True)
class Arm:
    """A way to explore: the policy, what it adds to a task's options, and whether noise adapts."""

    policy: Any = "MlpPolicy"
    options: Options = field(default_factory=dict)
    policy_kwargs: Options = field(default_factory=dict)
    algorithm: Any = None
    adapts: bool = False


_ROWS: Options = {"draw_per_environment": True}
_BUFFER: Options = {"rollout_buffer_class": NoisyRolloutBuffer}


def _noisy(policy: Any, **policy_kwargs: Any) -> Arm:
    return Arm(policy, policy_kwargs=policy_kwargs)


def _per_environment(**policy_kwargs: Any) -> Arm:
    """Return noise in PPO with a draw for each environment."""
    return Arm(NoisyPPOPolicy, _BUFFER, policy_kwargs={**_ROWS, **policy_kwargs})


def _of_discrete_actions(policy: Any, host: str = "MlpPolicy") -> dict[str, Arm]:
    """Return the arms of an algorithm that samples its actions from its policy."""
    return {
        "neither": Arm(host),
        "entropy bonus": Arm(host, {"ent_coef": 0.01}),
        "learned, all layers": _noisy(policy, noise_in="all"),
        "learned, last layer": _noisy(policy, noise_in="last"),
    }


ARMS: dict[str, dict[str, Arm]] = {
    "td3": {
        "no noise": Arm(),
        "Gaussian": Arm(options={"action_noise": NormalActionNoise}),
        "OU": Arm(options={"action_noise": OrnsteinUhlenbeckActionNoise}),
        "learned": _noisy(NoisyTD3Policy),
        "learned, redrawn at updates": _noisy(NoisyTD3Policy, redraw="update"),
        "learned, last layer": _noisy(NoisyTD3Policy, noise_in="last"),
        "learned, critics too": _noisy(NoisyTD3Policy, critic_noise=True),
        "adaptive": Arm(NoisyTD3Policy, policy_kwargs={"learned": False}, adapts=True),
    },
    "sac": {
        "squashed Gaussian": Arm(),
        "Gaussian": Arm(options={"action_noise": NormalActionNoise}),
        "gSDE": Arm(options={"use_sde": True}),
        "learned": _noisy(NoisySACPolicy),
        "learned, last layer": _noisy(NoisySACPolicy, noise_in="last"),
        "adaptive": Arm(NoisySACPolicy, policy_kwargs={"learned": False}, adapts=True),
    },
    "ppo": {
        "Gaussian": Arm(),
        "gSDE": Arm(options={"use_sde": True, "sde_sample_freq": 4}),
        "learned, all layers": _per_environment(noise_in="all"),
        "learned, last layer": _per_environment(noise_in="last"),
        "adaptive, all layers": replace(
            _per_environment(noise_in="all", learned=False), adapts=True
        ),
        "adaptive, last layer": replace(
            _per_environment(noise_in="last", learned=False), adapts=True
        ),
    },
    "recurrent": {
        **_of_discrete_actions(NoisyRecurrentPPOPolicy, "MlpLstmPolicy"),
        "learned, all layers, per environment": Arm(
            NoisyRecurrentPPOPolicy,
            policy_kwargs={**_ROWS, "noise_in": "all"},
            algorithm=NoisyRecurrentPPO,
        ),
    },
    "discrete ppo": _of_discrete_actions(NoisyPPOPolicy),
    "a2c": _of_discrete_actions(NoisyA2CPolicy),
}
_ALGORITHMS: dict[str, Any] = {
    "td3": TD3,
    "sac": SAC,
    "ppo": PPO,
    "recurrent": RecurrentPPO,
    "discrete ppo": PPO,
    "a2c": A2C,
}


def build(task: Task, arm: Arm, seed: int) -> tuple[Any, list[BaseCallback]]:
    """Build an agent and the callbacks that it needs."""
    torch.set_num_threads(1)
    environments = environments_of(task, seed, task.environments)
    options = {**task.options, **arm.options}
    kwargs = {**options.pop("policy_kwargs", {}), **arm.policy_kwargs}
    noise = options.get("action_noise")
    if noise is not None:
        shape = environments.action_space.shape
        options["action_noise"] = noise(np.zeros(shape), np.full(shape, DEVIATION))
    kind = arm.algorithm or _ALGORITHMS[task.algorithm]
    model = kind(arm.policy, environments, seed=seed, device="cpu", policy_kwargs=kwargs, **options)
    # Agent steps between two measurements, each on the last 256 observations.
    every = 2048 if task.algorithm == "ppo" else 50
    control = NoiseControl(action_deviation=DEVIATION, every=every) if arm.adapts else None
    return model, [] if control is None else [control]


def environments_of(task: Task, seed: int, number: int) -> Any:
    """Build environments of a task; other seeds make other ones."""
    return make_vec_env(task.environment, number, seed=seed, wrapper_class=task.wrapper)


TIMED_STEPS = {"vector": 1024}
_TIMED = {
    "td3": ("Gaussian", "learned"),
    "sac": ("squashed Gaussian", "learned"),
    "ppo": ("Gaussian", "learned, last layer"),
    "recurrent": ("entropy bonus", "learned, last layer"),
}
"""The arms to time of each algorithm: the host's own exploration, and ours by default."""


def agent(algorithm: str, *, noisy: bool, observations: str) -> Timed:  # noqa: ARG001
    """Build the agent to time: learned noise or the host's own, on the algorithm's first task."""
    task = next(one for one in TASKS.values() if one.algorithm == algorithm)
    arm = ARMS[algorithm][_TIMED[algorithm][noisy]]
    return Timed(build(task, arm, seed=0)[0])


def main() -> None:
    """Time learned noise against the host's own exploration, in turns, and keep the times."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--algorithm", choices=_TIMED, required=True)
    parser.add_argument(
        "--machine", required=True, help="in words: processor, cores, what else ran"
    )
    arguments = parser.parse_args()
    algorithm = arguments.algorithm
    this: Any = sys.modules[__name__]
    measured = [measure_overhead(this, algorithm, one) for one in TIMED_STEPS]
    result = {**context(this, arguments.machine), "measured": measured}
    print(json.dumps(result, indent=1, ensure_ascii=False))
    keep("sb3", "overhead", "pendulum-ppo" if algorithm == "ppo" else algorithm, result)


if __name__ == "__main__":
    main()
