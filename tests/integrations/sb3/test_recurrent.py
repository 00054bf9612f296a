"""RecurrentPPO under its host: one draw over a rollout, in LSTMs and heads, and in the update."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("stable_baselines3")
pytest.importorskip("sb3_contrib")

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import SimpleMultiObsEnv
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

import noisynet
from noisynet.integrations.sb3 import (
    NoiseCallback,
    NoiseControl,
    NoisyRecurrentPPO,
    NoisyRecurrentPPOPolicy,
    recurrent,
)

ENVIRONMENTS = 4
KINDS: dict[str, Any] = {"one draw": RecurrentPPO, "one per environment": NoisyRecurrentPPO}
MEMORIES = {
    "two LSTMs": {},
    "shared": {"shared_lstm": True, "enable_critic_lstm": False},
    "the actor's alone": {"enable_critic_lstm": False},
}


def agent(kind: str, environment: Any = "CartPole-v1", **options: Any) -> Any:
    algorithm = KINDS[kind]
    # Time limits of 9 steps: episodes end within rollouts, and sequences of a minibatch differ.
    limit = {"max_episode_steps": 9} if isinstance(environment, str) else None
    own = {
        "lstm_hidden_size": 16,
        "net_arch": [16],
        "noise_in": "all",
        "draw_per_environment": algorithm is NoisyRecurrentPPO,
    }
    settings = {
        "n_steps": 16,
        "batch_size": 20,
        "n_epochs": 2,
        "seed": 0,
        "device": "cpu",
        "policy_kwargs": {**own, **options.pop("policy_kwargs", {})},
        **options,
    }
    environments = make_vec_env(environment, ENVIRONMENTS, seed=0, env_kwargs=limit)
    return algorithm(NoisyRecurrentPPOPolicy, environments, **settings)


def collect(model: Any) -> None:
    if model._last_obs is None:
        model._setup_learn(1000, None)
    _, callback = model._setup_learn(1000, None, reset_num_timesteps=False)
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    model.policy.set_training_mode(True)


@torch.no_grad()
def largest_deviation(model: Any) -> tuple[float, float]:
    """How far the ratio of the first update is from 1, and values from those of the rollout."""
    ratios, values = [], []
    for data in model.rollout_buffer.get(20):
        actions = data.actions
        if isinstance(model.action_space, spaces.Discrete):
            actions = actions.long().flatten()
        value, log_prob, _ = model.policy.evaluate_actions(
            data.observations, actions, data.lstm_states, data.episode_starts
        )
        mask = data.mask > 0
        ratios.append(((log_prob - data.old_log_prob).exp() - 1)[mask])
        values.append((value.flatten() - data.old_values)[mask])
    return float(torch.cat(ratios).abs().max()), float(torch.cat(values).abs().max())


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_first_ratio_is_one(kind: str, memory: str) -> None:
    model = agent(kind, policy_kwargs=MEMORIES[memory])
    for _ in range(2):
        collect(model)
        assert model.rollout_buffer.episode_starts[1:].any(), "episodes start within the rollout"
        assert max(largest_deviation(model)) < 1e-5
        model.policy.optimizer.step()


@pytest.mark.parametrize("kind", KINDS)
def test_continuous_actions_and_dicts(kind: str) -> None:
    model = agent(kind, "Pendulum-v1")
    collect(model)
    assert max(largest_deviation(model)) < 1e-5
    model = agent(kind, SimpleMultiObsEnv)
    collect(model)
    assert max(largest_deviation(model)) < 1e-5
    model.learn(128, callback=NoiseCallback(every=16), log_interval=10_000)
    assert model.logger.name_to_value["noise/effective_epsilon"] > 0


def test_a_new_draw_in_the_update_would_show() -> None:
    model = agent("one draw")
    collect(model)
    noisynet.resample(model.policy)
    ratio, value = largest_deviation(model)
    assert ratio > 0.01
    assert value > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_an_environment_acts_by_its_own_draw_and_memory(kind: str) -> None:
    """The slow reference: each environment by itself, step by step."""
    model = agent(kind)
    collect(model)
    buffer, policy = model.rollout_buffer, model.policy
    drawn = policy._rollout_draw
    seen = torch.as_tensor(buffer.observations)
    for row in range(ENVIRONMENTS):
        zeros = torch.zeros(1, 1, 16)
        states = RNNStates((zeros, zeros), (zeros, zeros))
        own = drawn if drawn.rows is None else drawn[row]
        for step in range(model.n_steps):
            start = torch.as_tensor(buffer.episode_starts[step, row : row + 1])
            with noisynet.using(policy, own), torch.no_grad():
                _, value, _, states = RecurrentActorCriticPolicy.forward(
                    policy, seen[step, row : row + 1], states, start
                )
            assert value.item() == pytest.approx(float(buffer.values[step, row]), abs=1e-5)
    if drawn.rows is not None:
        assert len(drawn.flats[0].unique(dim=0)) == ENVIRONMENTS


class Watch(BaseCallback):
    """Note the draw in force, and in how many states it changes the greedy action."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[tuple[int, torch.Tensor]] = []

    def _on_step(self) -> bool:
        assert not self.model.policy.training, "the host collects in eval mode"
        self.model.predict(self.model._last_obs[:1], deterministic=False)
        held = noisynet.held(self.model.policy)
        self.draws.append((self.model._n_updates, held.flats[0].clone()))
        return True


@pytest.mark.parametrize("kind", KINDS)
def test_one_draw_for_each_rollout_and_sigma_learns(kind: str) -> None:
    model = agent(kind)
    names = set(noisynet.noisy_layers(model.policy))
    assert {"lstm_actor", "lstm_critic", "action_net", "value_net"} <= names
    sigmas = [one.detach().clone() for one in noisynet.sigma_parameters(model.policy)]
    watch = Watch()
    model.learn(192, callback=watch)
    same = [torch.equal(one, other) for (_, one), (_, other) in pairwise(watch.draws)]
    updates = [count for count, _ in watch.draws]
    assert same == [one == other for one, other in pairwise(updates)]
    assert set(same) == {True, False}
    for before, now in zip(sigmas, noisynet.sigma_parameters(model.policy), strict=True):
        assert (now - before).abs().mean() > 0


def test_predict_is_the_mean_weights_or_noise() -> None:
    model = agent("one draw", "Pendulum-v1")
    seen = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    sure, states = model.predict(seen, deterministic=True)
    again, _ = model.predict(seen, states, np.ones(50), deterministic=True)
    assert np.array_equal(sure, again), "an episode's start forgets"
    later, _ = model.predict(seen, states, np.zeros(50), deterministic=True)
    assert not np.array_equal(sure, later)
    with torch.no_grad():
        greedy = model.policy.greedy(torch.from_numpy(seen), None)
    assert np.allclose(sure, greedy.numpy())
    # Equal observations differ by more than the Gaussian's width would explain.
    with torch.no_grad():
        model.policy.log_std.fill_(-9.0)
    noisy, _ = model.predict(seen, deterministic=False)
    assert np.abs(noisy - sure).mean() > 0.02


@pytest.mark.parametrize("rows", [1, ENVIRONMENTS, 7])
def test_as_many_observations_as_environments_have_their_draws(rows: int) -> None:
    model = agent("one per environment")
    collect(model)
    policy, seen = model.policy, torch.randn(rows, 4)
    zeros, starts = torch.zeros(1, rows, 16), torch.ones(rows)
    states = RNNStates((zeros, zeros), (zeros, zeros))

    @torch.no_grad()
    def found() -> list[torch.Tensor]:
        distribution, _ = policy.get_distribution(seen, states.pi, starts)
        value = policy.predict_values(seen, states.vf, starts)
        return [distribution.distribution.logits, value, policy(seen, states, starts)[1]]

    drawn, other = noisynet.held(policy), noisynet.draw(policy)
    with noisynet.using(policy, drawn) if rows == ENVIRONMENTS else noisynet.mean_weights(policy):
        expected = found()
    assert all(map(torch.equal, found(), expected))
    # A draw in force is always used.
    with noisynet.using(policy, other):
        assert not any(map(torch.equal, found(), expected))


def test_the_host_s_loop_over_starts_gives_the_same() -> None:
    policy = agent("one draw").policy
    noisynet.hold(policy)
    features, state = torch.randn(3 * 7, 4), torch.randn(2, 1, 3, 16)
    for starts in (torch.zeros(3, 7), torch.eye(3, 7), torch.ones(3, 7)):
        arguments = (features, tuple(state), starts.flatten(), policy.lstm_actor)
        ours, host = policy._process_sequence(*arguments), (
            RecurrentActorCriticPolicy._process_sequence(*arguments)
        )  # fmt: skip
        assert torch.allclose(ours[0], host[0], atol=1e-6)
        assert torch.allclose(ours[1][1], host[1][1], atol=1e-6)


def test_sequences_with_starts_take_one_call_of_the_lstm_where_the_host_takes_one_a_step() -> None:
    torch.manual_seed(0)
    lstm, calls = nn.LSTM(3, 4), []
    lstm.register_forward_hook(lambda *_: calls.append(1))
    states = (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))
    starts = torch.zeros(2, 5)
    starts[:, 0] = 1.0
    for policy, expected in ((NoisyRecurrentPPOPolicy, 1), (RecurrentActorCriticPolicy, 5)):
        calls.clear()
        policy._process_sequence(torch.randn(10, 3), states, starts.flatten(), lstm)
        assert len(calls) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_goes_on_as_it_was(kind: str, tmp_path: Path) -> None:
    model = agent(kind)
    model.learn(64)
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model", env=model.get_env())
    for key, value in model.policy.state_dict().items():
        assert torch.equal(value, loaded.policy.state_dict()[key])
    watch = Watch()
    loaded.learn(128, callback=watch, reset_num_timesteps=False)
    assert len({tuple(draw.flatten().tolist()) for _, draw in watch.draws}) == 2


def test_the_doctor_before_and_after() -> None:
    # The host starts the means of `action_net` near 0, which is σ that drowns μ to the doctor.
    model = agent("one draw", "Pendulum-v1", policy_kwargs={"ortho_init": False})
    seen = torch.randn(8, 3)
    zeros = torch.zeros(1, 8, 16)
    states, starts = RNNStates((zeros, zeros), (zeros, zeros)), torch.ones(8)

    def loss() -> torch.Tensor:
        values, log_prob, _ = model.policy.evaluate_actions(seen, torch.zeros(8, 1), states, starts)
        return values.square().mean() - log_prob.mean()

    for steps in (0, 64):
        model.learn(steps)
        found = noisynet.doctor(
            model.policy,
            (seen, states, starts),
            act=lambda one: model.predict(one[0].numpy(), deterministic=False)[0],
            evaluate=lambda one: model.predict(one[0].numpy(), deterministic=True)[0],
            loss=loss,
            optimizer=model.policy.optimizer,
        )
        assert found.ok, str(found)


def test_a_target_of_the_action_s_deviation() -> None:
    model = agent("one per environment", "Pendulum-v1", policy_kwargs={"learned": False})
    control = NoiseControl(action_deviation=0.01, every=64, observations=32, factor=1.3)
    model.learn(256, callback=control)
    assert noisynet.control.scale(model.policy) < 1


class Sets(BaseFeaturesExtractor):
    """(B, 4) seen as a set of two entities."""

    def __init__(self, space: spaces.Box) -> None:
        super().__init__(space, 8)
        self.layer = nn.Linear(2, 8)

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        return self.layer(seen.reshape(-1, 2, 2)).mean(1)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_over_sets_a_row_of_a_prediction_has_its_own_draw_and_memory(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With as many rows as entities, too."""
    model = agent("one draw", policy_kwargs={"features_extractor_class": Sets}).learn(64)
    policy = model.policy
    # The greedy action of a policy without its Gaussian or its dice is all noise of the weights.
    monkeypatch.setattr(CategoricalDistribution, "sample", CategoricalDistribution.mode)
    drawn = noisynet.draw(policy, rows=rows)
    monkeypatch.setattr(recurrent, "draw_for", lambda *_: drawn)
    generator = np.random.default_rng(0)
    seen = generator.normal(size=(rows, 4)).astype(np.float32)
    memory = tuple(generator.normal(size=(2, 1, rows, 16)).astype(np.float32))
    starts = np.arange(rows) % 2 == 1
    actions, following = policy.predict(seen, memory, starts)
    logits = policy.action_values(torch.from_numpy(seen), drawn)
    for row in range(rows):
        own = tuple(one[:, [row]] for one in memory)
        with noisynet.using(policy, drawn[row]), torch.no_grad():
            distribution, states = RecurrentActorCriticPolicy.get_distribution(
                policy,
                torch.from_numpy(seen[[row]]),
                tuple(map(torch.from_numpy, own)),
                torch.tensor(starts[[row]], dtype=torch.float32),
            )
        assert actions[row] == distribution.mode()
        for found, expected in zip(following, states, strict=True):
            assert np.allclose(found[:, [row]], expected, atol=1e-6)
        expected = policy.action_values(torch.from_numpy(seen[[row]]), drawn[row])
        assert torch.allclose(logits[row], expected[0], atol=1e-6)
    # The memory that is returned is for the next prediction.
    assert policy.predict(seen, following, starts)[0].shape == (rows,)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="needs NoisyRecurrentPPO in place of RecurrentPPO"):
        agent("one draw", policy_kwargs={"draw_per_environment": True})
    with pytest.raises(ValueError, match=r"Sets see other rows .* pass noise_in='head'"):
        agent("one per environment", policy_kwargs={"features_extractor_class": Sets}).learn(64)
    head = {"features_extractor_class": Sets, "noise_in": "head"}
    assert agent("one per environment", policy_kwargs=head).learn(64).num_timesteps == 64
    with pytest.warns(UserWarning, match="turn it off with ent_coef=0$"):
        agent("one draw", ent_coef=0.01)
