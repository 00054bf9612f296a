"""What users get wrong with Stable-Baselines3: one clear line each."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

pytest.importorskip("stable_baselines3")
pytest.importorskip("sb3_contrib")

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import ARS, QRDQN, TRPO
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.envs import SimpleMultiObsEnv
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import noisynet
from noisynet.integrations.sb3 import (
    NoiseCallback,
    NoisyA2CPolicy,
    NoisyDQNPolicy,
    NoisyPPOPolicy,
    NoisyQRDQNPolicy,
    NoisyRolloutBuffer,
)

NO_EPSILON = {"exploration_initial_eps": 0, "exploration_final_eps": 0}


@pytest.mark.parametrize("policy", [NoisyDQNPolicy, NoisyPPOPolicy])
@pytest.mark.parametrize("algorithm", [SAC, TD3, TRPO, ARS])
def test_an_algorithm_that_is_not_supported(algorithm: Any, policy: Any) -> None:
    expected = (
        rf"{policy.__name__}: got the algorithm {algorithm.__name__}, expected .*"
        "NoisyDQNPolicy for DQN, NoisyQRDQNPolicy for QRDQN, NoisyPPOPolicy for PPO, "
        "NoisyA2CPolicy for A2C"
    )
    with pytest.raises(TypeError, match=expected):
        algorithm(policy, "Pendulum-v1", device="cpu", **_small(algorithm))


def _small(algorithm: Any) -> dict[str, Any]:
    return {"buffer_size": 10} if algorithm in (SAC, TD3) else {}


def test_the_policy_of_another_algorithm() -> None:
    with pytest.raises(TypeError, match="NoisyA2CPolicy: got the algorithm PPO, expected A2C"):
        PPO(NoisyA2CPolicy, "CartPole-v1", device="cpu")


@pytest.mark.parametrize(
    ("algorithm", "policy"), [(DQN, NoisyDQNPolicy), (QRDQN, NoisyQRDQNPolicy)]
)
def test_epsilon_left_on_is_told_how_to_turn_off(algorithm: Any, policy: Any) -> None:
    with pytest.warns(UserWarning, match="with exploration_initial_eps=0, exploration_fin") as seen:
        algorithm(policy, "CartPole-v1", buffer_size=10, device="cpu")
    assert [warning.filename for warning in seen] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        algorithm(policy, "CartPole-v1", buffer_size=10, device="cpu", **NO_EPSILON)


@pytest.mark.parametrize(("algorithm", "policy"), [(PPO, NoisyPPOPolicy), (A2C, NoisyA2CPolicy)])
def test_an_entropy_bonus_left_on_is_told_how_to_turn_off(algorithm: Any, policy: Any) -> None:
    with pytest.warns(UserWarning, match="turn it off with ent_coef=0$") as seen:
        algorithm(policy, "CartPole-v1", ent_coef=0.01, device="cpu")
    assert [warning.filename for warning in seen] == [__file__]
    with pytest.warns(UserWarning, match="turn it off with use_sde=False$"):
        algorithm(policy, "Pendulum-v1", use_sde=True, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        algorithm(policy, "CartPole-v1", device="cpu")


class WithoutLinears(DQNPolicy):
    def make_q_net(self) -> QNetwork:
        network = super().make_q_net()
        network.q_net = nn.Sequential(nn.Unflatten(1, (4, 1)), nn.Conv1d(4, 2, 1), nn.Flatten())
        return network


class NoisyWithoutLinears(NoisyDQNPolicy, WithoutLinears):
    pass


def test_a_policy_without_linear_layers() -> None:
    expected = "NoisyWithoutLinears: noise_in='all' finds no nn.Linear in QNetwork"
    with pytest.raises(ValueError, match=expected):
        DQN(NoisyWithoutLinears, "CartPole-v1", buffer_size=10, device="cpu", **NO_EPSILON)


class OwnExtractor(BaseFeaturesExtractor):
    """One layer: of a lazy size, or under a parametrisation."""

    def __init__(self, space: spaces.Box, lazy: bool) -> None:
        super().__init__(space, 8)
        self.layer = nn.LazyLinear(8) if lazy else weight_norm(nn.Linear(4, 8))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.layer(observations)


def test_all_layers_are_those_of_an_extractor_too_or_an_error() -> None:
    def network(lazy: bool, **options: Any) -> Any:
        own = {
            "features_extractor_class": OwnExtractor,
            "features_extractor_kwargs": {"lazy": lazy},
        }
        kwargs = {"policy_kwargs": own | options, "buffer_size": 10, "device": "cpu"}
        return DQN(NoisyDQNPolicy, "CartPole-v1", **kwargs, **NO_EPSILON).q_net

    name = "features_extractor.layer"
    assert name in noisynet.noisy_layers(network(False))
    with pytest.raises(ValueError, match=f"noise_in='all': '{name}' is a LazyLinear without"):
        network(True)
    assert name not in noisynet.noisy_layers(network(True, noise_in="head"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"noise_in": "first"}, "noise_in: got 'first', expected one of 'all', 'head', 'last'"),
        ({"noise": "gaussian"}, "noise: got 'gaussian'"),
        ({"sigma0": -1.0}, "sigma0: got -1.0"),
    ],
)
def test_bad_options(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        PPO(NoisyPPOPolicy, "CartPole-v1", policy_kwargs=options, device="cpu")


def test_one_draw_per_environment_needs_a_buffer_that_knows_them() -> None:
    with pytest.raises(ValueError, match="needs rollout_buffer_class=NoisyRolloutBuffer"):
        PPO(
            NoisyPPOPolicy,
            "CartPole-v1",
            policy_kwargs={"draw_per_environment": True},
            device="cpu",
        )


def test_a_buffer_for_dicts_is_named() -> None:
    expected = (
        "NoisyRolloutBuffer: got observations that are dicts; pass rollout_buffer_class=Noisy"
    )
    with pytest.raises(TypeError, match=expected):
        PPO(
            NoisyPPOPolicy,
            SimpleMultiObsEnv(),
            rollout_buffer_class=NoisyRolloutBuffer,
            device="cpu",
        )


class Frames(gymnasium.Env[np.ndarray, int]):
    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Box) -> None:
        self.observation_space = space


def extractor_of(space: spaces.Box, policy: Any = NoisyDQNPolicy, **options: Any) -> str:
    if policy is NoisyDQNPolicy:
        options |= {"buffer_size": 10, **NO_EPSILON}
        made: Any = DQN(policy, Frames(space), device="cpu", **options).q_net
    else:
        made = PPO(policy, Frames(space), device="cpu", **options).policy
    return type(made.features_extractor).__name__


@pytest.mark.parametrize("policy", [NoisyDQNPolicy, NoisyPPOPolicy])
@pytest.mark.parametrize(
    "space",
    [
        pytest.param(spaces.Box(0, 255, (84, 84), np.uint8), id="no channel"),
        pytest.param(spaces.Box(-10, 10, (84, 84, 1), np.float32), id="VecNormalize"),
        pytest.param(spaces.Box(0, 1, (3, 40, 40), np.float32), id="0 to 1"),
    ],
)
def test_frames_that_the_host_s_cnn_refuses_are_no_perceptron_in_silence(
    space: spaces.Box, policy: Any
) -> None:
    with pytest.raises(
        ValueError, match=rf"{policy.__name__}: got observations .*as the host know"
    ):
        extractor_of(space, policy)
    chosen = {"features_extractor_class": FlattenExtractor}
    assert extractor_of(space, policy, policy_kwargs=chosen) == "FlattenExtractor"
    if space.shape[0] == 3:
        normalised = {"normalize_images": False}
        assert extractor_of(space, policy, policy_kwargs=normalised) == "NatureCNN"


@pytest.mark.parametrize(
    "space", [spaces.Box(-1, 1, (5, 40), np.float32), spaces.Box(0, 1, (10, 10, 4), np.bool_)]
)
def test_small_grids_and_matrices_are_flattened_as_before(space: spaces.Box) -> None:
    assert extractor_of(space) == "FlattenExtractor"


class Grid(gymnasium.Env[np.ndarray, int]):
    """Images of MiniGrid's shape."""

    observation_space = spaces.Box(0, 255, (7, 7, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, Any]:
        super().reset(seed=seed)
        return self._seen(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, Any]:
        return self._seen(), float(action), False, False, {}

    def _seen(self) -> np.ndarray:
        return self.np_random.integers(0, 256, (7, 7, 3), np.uint8)


@pytest.mark.parametrize(
    ("algorithm", "policy", "options"),
    [
        (PPO, NoisyPPOPolicy, {"n_steps": 8, "batch_size": 8}),
        (DQN, NoisyDQNPolicy, {"buffer_size": 10, "learning_starts": 0, **NO_EPSILON}),
    ],
)
def test_images_too_small_for_the_cnn_are_flattened_as_by_the_host(
    algorithm: Any, policy: Any, options: dict[str, Any]
) -> None:
    model = algorithm(policy, Grid(), device="cpu", **options).learn(8)
    assert isinstance(model.policy.noisy_network.features_extractor, FlattenExtractor)
    assert model.predict(np.zeros((5, 7, 7, 3), np.uint8))[0].shape == (5,)


def test_an_option_of_another_extractor() -> None:
    options = {"features_extractor_kwargs": {"features_dim": 8}}
    expected = "features_extractor_kwargs: got features_dim, expected none for FlattenExtractor"
    with pytest.raises(ValueError, match=expected):
        extractor_of(spaces.Box(-1, 1, (4,), np.float32), policy_kwargs=options)
    images = spaces.Box(0, 255, (40, 40, 1), np.uint8)
    assert extractor_of(images, policy_kwargs=options) == "NatureCNN"


@pytest.mark.parametrize(("algorithm", "policy"), [(PPO, NoisyPPOPolicy), (A2C, NoisyA2CPolicy)])
def test_the_host_s_advice_against_a_gpu_stays(algorithm: Any, policy: Any) -> None:
    # Another device than the CPU is what the host looks at.
    with pytest.warns(UserWarning, match=f"trying to run {algorithm.__name__} on the GPU.*Noisy"):
        algorithm(policy, "CartPole-v1", device="meta")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        algorithm(policy, Frames(spaces.Box(0, 255, (40, 40, 1), np.uint8)), device="meta")


def test_the_callback_wants_a_noisy_policy_and_positive_numbers() -> None:
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu")
    with pytest.raises(TypeError, match="NoiseCallback: got ActorCriticPolicy, expected one of"):
        model.learn(8, callback=NoiseCallback())
    with pytest.raises(ValueError, match="NoiseCallback: every: got 0, expected at least 1"):
        NoiseCallback(every=0)
