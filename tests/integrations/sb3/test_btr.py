"""BTR's torso under the host's DQN and QR-DQN: its layers, its noise, its norms after a copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("stable_baselines3")
pytest.importorskip("sb3_contrib")

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import QRDQN
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from torch.nn.utils import parametrize

import noisynet
from noisynet.integrations.sb3 import BTRDQNPolicy, BTRQRDQNPolicy, ImpalaExtractor

AGENTS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "dqn": (DQN, BTRDQNPolicy, {}),
    "qrdqn": (QRDQN, BTRQRDQNPolicy, {"n_quantiles": 5}),
}


def make_model(name: str) -> Any:
    algorithm, policy, own = AGENTS[name]
    environments = make_vec_env(
        FakeImageEnv,
        2,
        seed=0,
        env_kwargs={"screen_height": 41, "screen_width": 44, "n_channels": 2, "discrete": True,
                    "channel_first": True},
    )  # fmt: skip
    return algorithm(
        policy,
        environments,
        exploration_initial_eps=0.0,
        exploration_final_eps=0.0,
        learning_starts=4,
        batch_size=4,
        buffer_size=100,
        train_freq=2,
        target_update_interval=4,
        policy_kwargs={
            "net_arch": [8],
            "features_extractor_kwargs": {"width": 0.125, "pooling": 2},
            **own,
        },
        device="cpu",
        seed=0,
    )


def target_of(model: Any) -> Any:
    return model.policy.target_network


@pytest.mark.parametrize("name", AGENTS)
def test_the_network_is_btr_s_and_learns_under_noise(name: str, tmp_path: Path) -> None:
    model = make_model(name)
    network = model.policy.noisy_network
    assert isinstance(network.features_extractor, ImpalaExtractor)
    # The convolutions are plain: noise is in the layers after the torso.
    assert len(noisynet.noisy_layers(network)) == 2
    before = {name: value.clone() for name, value in network.state_dict().items()}
    observation = model.get_env().reset()
    model.learn(60)
    after = network.state_dict()
    learned = [one for one in after if one.endswith(("weight", "original", "sigma", "_u"))]
    assert len(learned) > 30
    assert not any(torch.equal(before[one], after[one]) for one in learned)
    noisy = [model.predict(observation, deterministic=False)[0] for _ in range(20)]
    assert len({tuple(one) for one in noisy}) > 1
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model", device="cpu")
    actions = [one.predict(observation, deterministic=True)[0] for one in (model, loaded)]
    assert np.array_equal(*actions)


@pytest.mark.parametrize("name", AGENTS)
def test_the_target_s_norms_follow_the_parameters_that_the_host_copies(name: str) -> None:
    """It copies parameters alone: estimates of former weights would let the norms grow."""
    model = make_model(name)
    model.learn(8)
    online, target = model.policy.noisy_network, target_of(model)
    with torch.no_grad():
        for parameter, own in zip(target.parameters(), online.parameters(), strict=True):
            parameter.copy_(own if own.ndim != 4 else own.flip(-1) * 3)
        observation = torch.rand(2, 2, 41, 44)
        for _ in range(80):
            target(observation)
        layers = [one for one in target.modules() if parametrize.is_parametrized(one)]
        assert len(layers) == 12
        for layer in layers:
            largest = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
            assert float(largest) == pytest.approx(1, abs=0.05)


def test_the_defaults_are_btr_s_and_vectors_have_no_torso() -> None:
    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    extractor = ImpalaExtractor(space)
    assert extractor.features_dim == 2304
    assert any(map(parametrize.is_parametrized, extractor.modules()))
    policy = BTRDQNPolicy(space, spaces.Discrete(3), lambda _: 1e-4)
    shapes = [tuple(one.weight.shape) for one in noisynet.noisy_layers(policy.q_net).values()]
    assert shapes == [(512, 2304), (3, 512)]
    with pytest.raises(ValueError, match=r"impala torso: got observations of shape \(4,\)"):
        ImpalaExtractor(spaces.Box(-1, 1, (4,), np.float32))
