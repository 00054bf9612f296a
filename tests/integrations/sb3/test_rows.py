"""Networks over sets and sequences: the draw of an environment is for its row of the batch."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("stable_baselines3")
pytest.importorskip("sb3_contrib")

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import QRDQN
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from torch import nn

import noisynet
from noisynet.integrations.sb3 import (
    NoisyDQNPolicy,
    NoisyPPOPolicy,
    NoisyQRDQNPolicy,
    NoisyRolloutBuffer,
)

ENTITIES = 3


class Entities(gymnasium.Env[np.ndarray, int]):
    """Observations are sets of entities."""

    observation_space = spaces.Box(-1, 1, (ENTITIES, 4), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, Any]:
        super().reset(seed=seed)
        self.steps = 0
        return self._seen(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, Any]:
        self.steps += 1
        return self._seen(), float(action), False, self.steps == 5, {}

    def _seen(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, (ENTITIES, 4)).astype(np.float32)


class SetEncoder(BaseFeaturesExtractor):
    """(B, entities, 4) through one layer."""

    def __init__(self, space: spaces.Box) -> None:
        super().__init__(space, 8)
        self.layer = nn.Linear(4, 8)

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        return self.layer(seen).relu().mean(1)


class EntitiesFirst(SetEncoder):
    """(entities, B, 4), as a transformer takes them."""

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        return self.layer(seen.transpose(0, 1)).relu().mean(0)


class Places(SetEncoder):
    """The layer sees no observation: (entities, 4) of its own."""

    def __init__(self, space: spaces.Box) -> None:
        super().__init__(space)
        self.places = nn.Parameter(torch.rand(ENTITIES, 4))

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        return seen.mean(2) @ self.layer(self.places)


ENCODERS = [SetEncoder, EntitiesFirst, Places]
AGENTS: dict[str, tuple[Any, Any]] = {
    "dqn": (DQN, NoisyDQNPolicy),
    "qrdqn": (QRDQN, NoisyQRDQNPolicy),
}


def agent(name: str, encoder: Any, environments: int = ENTITIES) -> Any:
    algorithm, policy = AGENTS[name]
    return algorithm(
        policy,
        make_vec_env(Entities, environments, seed=0),
        policy_kwargs={"features_extractor_class": encoder, "net_arch": [8]},
        exploration_initial_eps=0,
        exploration_final_eps=0,
        learning_starts=0,
        buffer_size=100,
        batch_size=4,
        device="cpu",
        seed=0,
    )


# As many environments as entities, fewer, and more.
@pytest.mark.parametrize("environments", [ENTITIES, 2, 4])
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("name", AGENTS)
def test_a_row_has_its_own_draw(name: str, encoder: Any, environments: int) -> None:
    policy = agent(name, encoder, environments).policy
    network = policy.noisy_network
    seen = torch.rand(environments, ENTITIES, 4)
    drawn = noisynet.draw(network, rows=environments)
    values = policy.action_values(seen, drawn)
    for row in range(environments):
        expected = policy.action_values(seen[row : row + 1], drawn[row])
        assert torch.equal(values[row], expected[0])
    with pytest.raises(ValueError, match=f"got 5 rows, expected {environments}"):
        policy.action_values(torch.rand(5, ENTITIES, 4), drawn)


def test_collection_and_prediction_over_sets() -> None:
    model = agent("dqn", SetEncoder).learn(24)
    seen = np.random.default_rng(0).uniform(-1, 1, (ENTITIES, ENTITIES, 4)).astype(np.float32)
    assert model.predict(seen, deterministic=False)[0].shape == (ENTITIES,)


def over_sets(encoder: Any, environments: int) -> Any:
    return PPO(
        NoisyPPOPolicy,
        make_vec_env(Entities, environments, seed=0),
        policy_kwargs={
            "features_extractor_class": encoder,
            "noise_in": "all",
            "draw_per_environment": True,
        },
        rollout_buffer_class=NoisyRolloutBuffer,
        n_steps=6,
        batch_size=6,
        device="cpu",
        seed=0,
    )


@pytest.mark.parametrize("environments", [ENTITIES, 2])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_rollout_over_sets_is_learned_under_the_draws_that_acted(
    encoder: Any, environments: int
) -> None:
    model = over_sets(encoder, environments)
    _, callback = model._setup_learn(100, None)
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    policy, buffer = model.policy, model.rollout_buffer
    drawn = policy._rollout_draw
    seen = torch.as_tensor(buffer.observations).transpose(0, 1)
    for row in range(environments):
        with noisynet.using(policy, drawn[row]), torch.no_grad():
            values = ActorCriticPolicy.predict_values(policy, seen[row])
        assert torch.allclose(values.flatten(), torch.as_tensor(buffer.values[:, row]), atol=1e-6)
    for data in buffer.get(6):
        value, log_prob, _ = policy.evaluate_actions(data.observations, data.actions.flatten())
        assert torch.allclose(value.flatten(), data.old_values, atol=1e-6)
        assert torch.allclose(log_prob, data.old_log_prob, atol=1e-6)
    model.learn(24)


@pytest.mark.parametrize("environments", [ENTITIES, 2])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_over_sets_a_policy_is_asked_under_the_rollout_s_draws(
    encoder: Any, environments: int
) -> None:
    model = over_sets(encoder, environments).learn(24)
    policy, drawn = model.policy, model.policy._rollout_draw

    @torch.no_grad()
    def found(seen: torch.Tensor) -> list[torch.Tensor]:
        logits = policy.get_distribution(seen).distribution.logits
        return [logits, policy.predict_values(seen), policy(seen)[1]]

    seen = torch.rand(environments, ENTITIES, 4)
    for row in range(environments):
        with noisynet.using(policy, drawn[row]):
            expected = found(seen[[row]])
        for one, other in zip(found(seen), expected, strict=True):
            assert torch.allclose(one[[row]], other, atol=1e-6)
    # What asks without naming an environment never takes the draws by size.
    more = torch.rand(environments + 1, ENTITIES, 4)
    with noisynet.mean_weights(policy):
        by_the_means = found(more)
        # The user's choice counts more than the rollout's.
        assert all(
            torch.allclose(one[:environments], other, atol=1e-6)
            for one, other in zip(by_the_means, found(more[:environments]), strict=True)
        )
    assert all(map(torch.equal, found(more), by_the_means))
    plain = noisynet.denoise(copy.deepcopy(policy))
    assert torch.allclose(plain.get_distribution(more).distribution.logits, by_the_means[0])
    assert torch.allclose(plain(more[:environments])[1], by_the_means[1][:environments])


class OwnNetwork(QNetwork):
    pass


class OwnPolicy(DQNPolicy):
    def make_q_net(self) -> QNetwork:
        network = super().make_q_net()
        network.__class__ = OwnNetwork
        return network


class NoisyOwnPolicy(NoisyDQNPolicy, OwnPolicy):
    pass


@pytest.mark.parametrize("policy", [NoisyDQNPolicy, NoisyOwnPolicy, NoisyQRDQNPolicy])
def test_a_network_acts_and_is_saved_by_itself(policy: Any, tmp_path: Path) -> None:
    algorithm = QRDQN if policy is NoisyQRDQNPolicy else DQN
    model = algorithm(
        policy,
        "CartPole-v1",
        exploration_initial_eps=0,
        exploration_final_eps=0,
        policy_kwargs={"noise": "independent", "sigma0": 0.5, "noise_in": "last"},
        buffer_size=100,
        device="cpu",
    )
    network = model.policy.noisy_network
    seen = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    sure, _ = network.predict(seen, deterministic=True)
    assert np.array_equal(sure, model.predict(seen, deterministic=True)[0])
    assert np.array_equal(sure, network.predict(seen, deterministic=True)[0])
    assert 0 < np.mean(network.predict(seen, deterministic=False)[0] != sure) < 1
    scores = [evaluate_policy(network, make_vec_env("CartPole-v1", seed=0), 2) for _ in range(2)]
    assert scores[0] == scores[1]
    network.save(tmp_path / "network")
    loaded = type(network).load(tmp_path / "network", device="cpu")
    assert noisynet.noisy_layers(loaded).keys() == noisynet.noisy_layers(network).keys()
    for name, value in network.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    assert np.array_equal(sure, loaded.predict(seen, deterministic=True)[0])
