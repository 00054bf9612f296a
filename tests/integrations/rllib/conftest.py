"""What the tests of RLlib's algorithms share: small agents, which are stopped at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

ENVIRONMENTS = 4
TRAINING: dict[str, dict[str, Any]] = {
    "DQNConfig": {
        "epsilon": 0.0,
        "lr": 1e-3,
        "train_batch_size_per_learner": 16,
        "num_steps_sampled_before_learning_starts": 40,
    },
    "PPOConfig": {
        "lr": 1e-3,
        "train_batch_size_per_learner": 128,
        "minibatch_size": 32,
        "num_epochs": 2,
    },
    "SACConfig": {
        "actor_lr": 1e-3,
        "train_batch_size_per_learner": 16,
        "num_steps_sampled_before_learning_starts": 40,
    },
}


@pytest.fixture
def config_of() -> Callable[..., Any]:
    """Configure a small agent of a kind of the host's configs, with noise or without."""
    # Where the host is missing, its tests are skipped before they ask for this.
    from noisynet.integrations.rllib import add_noise

    def configured(
        kind: Any,
        env: str = "CartPole-v1",
        *,
        runners: int = 0,
        noisy: bool = True,
        **training: Any,
    ) -> Any:
        config = (
            kind()
            .environment(env)
            .env_runners(num_env_runners=runners, num_envs_per_env_runner=ENVIRONMENTS)
            .training(**{**TRAINING[kind.__name__], **training})
            .rl_module(model_config={"fcnet_hiddens": [16], "head_fcnet_hiddens": [16]})
            .debugging(seed=0, log_level="ERROR")
            .reporting(min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=0)
        )
        # Noise in all layers asks more of the adapter than that of the outputs, PPO's default.
        return add_noise(config, noise_in="all") if noisy else config

    return configured


@pytest.fixture
def built() -> Iterator[Callable[[Any], Any]]:
    """Build algorithms, and stop them at the end."""
    algorithms: list[Any] = []

    def build(config: Any) -> Any:
        algorithms.append(config.build_algo())
        return algorithms[-1]

    yield build
    for one in algorithms:
        one.stop()


@pytest.fixture
def learner_module() -> Callable[[Any], Any]:
    """Return the module that an algorithm learns."""
    return lambda algorithm: algorithm.learner_group._learner.module["default_policy"]
