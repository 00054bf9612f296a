"""`add_noise`, which puts a noisy RLModule into the config of an algorithm."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from torch import nn

from ...layers import NoiseName, noisify
from .learners import LEARNERS
from .modules import NoisyDQNRLModule, NoisyPPORLModule, NoisySACRLModule
from .noisy_module import check_noise_in

Config = TypeVar("Config", bound=AlgorithmConfig)

_MODULES: dict[type[AlgorithmConfig], type[Any]] = {
    DQNConfig: NoisyDQNRLModule,
    SACConfig: NoisySACRLModule,
    PPOConfig: NoisyPPORLModule,
}


def add_noise(
    config: Config,
    *,
    noise: NoiseName = "factorised",
    sigma0: float | None = None,
    noise_in: str | None = None,
) -> Config:
    """Set the noisy RLModule for an algorithm in its config, and return the config.

    Options are those of `NoisyDQNRLModule`; `noise_in` is "last" for PPO by default, "all" for DQN
    and SAC. The config's RLModule, if it has one, is replaced; so is the default learner of DQN and
    PPO, by one with the fused Adam and fewer checks. Raises TypeError for an algorithm that is not
    supported, and ValueError for unknown options and for the old API stack; warns of an entropy
    bonus and of the host's `noisy=True`.
    """
    module = next((ours for kind, ours in _MODULES.items() if type(config) is kind), None)
    if module is None:
        supported = ", ".join(kind.__name__ for kind in _MODULES)
        raise TypeError(
            f"add_noise: got a {type(config).__name__}; supported are {supported} of the new API "
            "stack"
        )
    if not config.enable_rl_module_and_learner:
        raise ValueError(
            "add_noise: got a config of the old API stack, expected "
            ".api_stack(enable_rl_module_and_learner=True, "
            "enable_env_runner_and_connector_v2=True)"
        )
    where: str = module.noise_in if noise_in is None else noise_in
    check_noise_in(where)
    noisify(nn.Linear(1, 1), noise=noise, sigma0=sigma0)
    bonus = getattr(config, "entropy_coeff", 0.0)
    if bonus:
        warnings.warn(
            f"{module.__name__}: an entropy bonus of {bonus} explores beside the noise; turn it "
            "off with .training(entropy_coeff=0.0)",
            stacklevel=2,
        )
    if getattr(config, "noisy", False):
        warnings.warn(
            f"{module.__name__}: noisy=True of the host does nothing in the new API stack; leave "
            "it out",
            stacklevel=2,
        )
    learner = LEARNERS.get(config.learner_class)
    if learner is not None:
        config.learners(learner_class=learner)
    options = {"noise": noise, "sigma0": sigma0, "noise_in": where}
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=module, model_config=options))
    return config
