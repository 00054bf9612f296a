"""PPO and A2C under Stable-Baselines3: one draw over a rollout, and the same one in the update."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("stable_baselines3")
pytest.importorskip("sb3_contrib")

import numpy as np
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv, SimpleMultiObsEnv

import noisynet
from noisynet.integrations.sb3 import (
    NoiseCallback,
    NoisyA2CPolicy,
    NoisyDictRolloutBuffer,
    NoisyPPOPolicy,
    NoisyRecurrentPPOPolicy,
    NoisyRolloutBuffer,
)

AGENTS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "ppo": (PPO, NoisyPPOPolicy, {"n_steps": 16, "batch_size": 16, "n_epochs": 2}),
    "a2c": (A2C, NoisyA2CPolicy, {"n_steps": 16}),
}
ENVIRONMENTS = 4
PER_ENVIRONMENT = {
    "policy_kwargs": {"draw_per_environment": True},
    "rollout_buffer_class": NoisyRolloutBuffer,
}
DRAWS = [pytest.param({}, id="one draw"), pytest.param(PER_ENVIRONMENT, id="one per environment")]


def agent(name: str, environment: Any = "CartPole-v1", **options: Any) -> Any:
    algorithm, policy, own = AGENTS[name]
    # Time limits of 9 steps, so that the host asks for values of single observations.
    limit = {"max_episode_steps": 9} if environment == "CartPole-v1" else None
    environments = make_vec_env(
        environment, options.pop("environments", ENVIRONMENTS), seed=0, env_kwargs=limit
    )
    # Noise in all layers asks more of the adapter than that of the output layers, the default.
    kwargs = {"noise_in": "all", **options.pop("policy_kwargs", {})}
    return algorithm(
        policy, environments, policy_kwargs=kwargs, device="cpu", seed=0, **{**own, **options}
    )


class Watch(BaseCallback):
    """Note the draw in force, and in how many states it changes the greedy action."""

    def __init__(self) -> None:
        super().__init__()
        self.changed: list[np.ndarray] = []
        self.draws: list[tuple[int, torch.Tensor]] = []

    def _on_step(self) -> bool:
        policy = self.model.policy
        assert not policy.training, "the host collects in eval mode"
        # Neither evaluation nor other forwards during a rollout touch its draw.
        self.model.predict(self.model._last_obs[:1], deterministic=False)
        held = noisynet.held(policy)
        observation, _ = policy.obs_to_tensor(self.model._last_obs)
        with torch.no_grad():
            changed = policy.greedy(observation, held) != policy.greedy(observation, None)
        self.changed.append(changed.numpy())
        self.draws.append((self.model._n_updates, held.flats[0].clone()))
        return True


def collect(model: Any, callback: Any = None) -> None:
    _, callback = model._setup_learn(1000, callback)
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    model.policy.set_training_mode(True)


def largest_deviation(model: Any) -> tuple[float, float]:
    """How far the ratio of the first update is from 1, and values from those of the rollout."""
    ratios, values = [], []
    for data in model.rollout_buffer.get(16):
        value, log_prob, _ = model.policy.evaluate_actions(
            data.observations, data.actions.long().flatten()
        )
        ratios.append((log_prob - data.old_log_prob).exp() - 1)
        values.append(value.flatten() - data.old_values)
    return float(torch.cat(ratios).abs().max()), float(torch.cat(values).abs().max())


@pytest.mark.parametrize("options", DRAWS)
@pytest.mark.parametrize("name", AGENTS)
def test_the_first_ratio_is_one(name: str, options: dict[str, Any]) -> None:
    model = agent(name, **options)
    for _ in range(2):
        collect(model)
        with torch.no_grad():
            ratio, value = largest_deviation(model)
        assert ratio < 1e-5
        assert value < 1e-5
        model.policy.optimizer.step()
        # Whoever asks for the mode in between starts no rollout.
        model.policy.set_training_mode(False)
        model.policy(torch.zeros(1, 4), deterministic=True)


class DoctorAndPrediction(BaseCallback):
    """The doctor takes a step of the optimizer, and a prediction sets the host's mode."""

    def _on_step(self) -> bool:
        if self.n_calls == 5:
            policy, seen = self.model.policy, self.model._last_obs
            batch, _ = policy.obs_to_tensor(seen)
            loss = lambda: policy.get_distribution(batch).entropy().mean()  # noqa: E731
            noisynet.doctor(policy, batch, loss=loss, optimizer=policy.optimizer)
            self.model.predict(seen, deterministic=True)
        return True


def test_nothing_redraws_in_the_middle_of_a_rollout() -> None:
    model = agent("ppo")
    collect(model, DoctorAndPrediction())
    with torch.no_grad():
        assert max(largest_deviation(model)) < 1e-5


def test_large_independent_noise_of_a_minibatch_is_one_draw_at_a_time() -> None:
    # Large enough for one forward for each draw, instead of an ε of all weights for each sample.
    kwargs = {"draw_per_environment": True, "noise": "independent", "net_arch": [128, 128]}
    model = agent("ppo", **{**PER_ENVIRONMENT, "policy_kwargs": kwargs})
    collect(model)
    layer, shapes = model.policy.action_net, set()
    layer.register_forward_pre_hook(lambda *_: shapes.add(layer.noise_state.override.shape))
    with torch.no_grad():
        assert max(largest_deviation(model)) < 1e-5
    size = layer.weight.numel() + layer.bias.numel()
    assert shapes == {(size,)}


def test_a_new_draw_in_the_update_would_show() -> None:
    model = agent("ppo")
    collect(model)
    noisynet.resample(model.policy)
    with torch.no_grad():
        ratio, value = largest_deviation(model)
    assert ratio > 0.05
    assert value > 0.05


@pytest.mark.parametrize("options", DRAWS)
@pytest.mark.parametrize("name", AGENTS)
def test_noise_acts_in_the_host_s_own_collection(name: str, options: dict[str, Any]) -> None:
    model = agent(name, **options)
    sigmas = [one.detach().clone() for one in noisynet.sigma_parameters(model.policy)]
    watch = Watch()
    model.learn(640, callback=watch)
    assert 0.05 < np.mean(watch.changed) < 0.95
    # One draw for each rollout, and not one less.
    same = [torch.equal(one, other) for (_, one), (_, other) in pairwise(watch.draws)]
    updates = [count for count, _ in watch.draws]
    assert same == [one == other for one, other in pairwise(updates)]
    assert set(same) == {True, False}
    shape = watch.draws[0][1].shape
    if options:
        assert all(len(draw.unique(dim=0)) == ENVIRONMENTS for _, draw in watch.draws)
    assert shape[:-1] == ((ENVIRONMENTS,) if options else ())
    for before, now in zip(sigmas, noisynet.sigma_parameters(model.policy), strict=True):
        assert now.grad is not None
        assert (now - before).abs().mean() > 0


@pytest.mark.parametrize("name", AGENTS)
def test_predict_is_the_mean_weights_or_noise(name: str) -> None:
    model = agent(name)
    observation = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    sure, _ = model.predict(observation, deterministic=True)
    with noisynet.mean_weights(model.policy), torch.no_grad():
        distribution = model.policy.get_distribution(torch.from_numpy(observation))
    assert np.array_equal(sure, distribution.mode().numpy())
    with torch.no_grad():
        actions, _, _ = model.policy(torch.from_numpy(observation), deterministic=True)
    assert np.array_equal(sure, actions.numpy())
    assert np.array_equal(sure, model.predict(observation, deterministic=True)[0])
    noisy = [model.predict(observation, deterministic=False)[0] for _ in range(2)]
    assert not np.array_equal(*noisy)


@pytest.mark.parametrize("options", DRAWS)
@pytest.mark.parametrize("name", AGENTS)
def test_a_saved_model_goes_on_as_it_was(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    model = agent(name, **options)
    model.learn(128)
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model", env=model.get_env())
    observation = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    assert np.array_equal(
        model.predict(observation, deterministic=True)[0],
        loaded.predict(observation, deterministic=True)[0],
    )
    drawn = noisynet.draw(model.policy)
    values = []
    for one in (model, loaded):
        with noisynet.using(one.policy, drawn), torch.no_grad():
            policy = one.policy.get_distribution(torch.from_numpy(observation))
            values.append(policy.distribution.logits)
    assert torch.equal(*values)
    watch = Watch()
    loaded.learn(192, callback=watch, reset_num_timesteps=False)
    assert len({tuple(draw.flatten().tolist()) for _, draw in watch.draws}) == 3


@pytest.mark.parametrize("name", AGENTS)
def test_images_dicts_and_continuous_actions(name: str) -> None:
    images = lambda: FakeImageEnv(  # noqa: E731
        screen_height=40, screen_width=40, n_channels=1, discrete=True
    )
    small = {"n_steps": 4, "environments": 2, **({"batch_size": 4} if name == "ppo" else {})}
    model = agent(name, images, **small).learn(16)
    assert set(noisynet.noisy_layers(model.policy)) == {
        "features_extractor.linear.0",
        "action_net",
        "value_net",
    }
    kwargs = {"draw_per_environment": True}
    model = agent(
        name,
        SimpleMultiObsEnv,
        policy_kwargs=kwargs,
        rollout_buffer_class=NoisyDictRolloutBuffer,
        **small,
    )
    collect(model)
    with torch.no_grad():
        assert max(largest_deviation(model)) < 1e-5
    model.learn(16, callback=NoiseCallback(every=8), log_interval=10_000)
    assert "noise/effective_epsilon" in model.logger.name_to_value
    model = agent(name, "Pendulum-v1", **small)
    model.learn(16, callback=NoiseCallback(every=8), log_interval=10_000)
    logged = model.logger.name_to_value
    assert logged["noise/snr/action_net"] > 0
    assert "noise/effective_epsilon" not in logged


def test_the_host_s_initial_means_stay() -> None:
    policy = agent("ppo").policy
    layers = noisynet.noisy_layers(policy)
    # Orthogonal with gain 0.01, as the host initialises the last layer of a policy.
    weight = layers["action_net"].weight.detach()
    assert torch.allclose(weight @ weight.T, 1e-4 * torch.eye(2), atol=1e-8)
    assert layers["action_net"].bias.abs().max() == 0
    assert torch.allclose(layers["action_net"].weight_sigma, torch.tensor(0.5 / 8))
    optimised = {id(one) for group in policy.optimizer.param_groups for one in group["params"]}
    assert optimised == {id(one) for one in policy.parameters()}


def test_where_the_noise_is() -> None:
    layers = {
        where: set(noisynet.noisy_layers(agent("a2c", policy_kwargs={"noise_in": where}).policy))
        for where in ("all", "head", "last")
    }
    assert layers["last"] == {"action_net", "value_net"}
    assert layers["all"] == layers["head"]
    assert len(layers["all"]) == 6


@pytest.mark.parametrize(
    ("algorithm", "policy"),
    [(PPO, NoisyPPOPolicy), (A2C, NoisyA2CPolicy), (RecurrentPPO, NoisyRecurrentPPOPolicy)],
)
def test_the_outputs_alone_are_noisy_by_default(algorithm: Any, policy: Any) -> None:
    model = algorithm(policy, make_vec_env("CartPole-v1", 4), n_steps=16, device="cpu")
    assert set(noisynet.noisy_layers(model.policy)) == {"action_net", "value_net"}


def test_weights_with_noise_in_other_layers_are_refused_in_one_line(tmp_path: Path) -> None:
    model = agent("ppo")  # in all layers
    del model.policy_kwargs["noise_in"]  # as saved when that was the default
    model.save(tmp_path / "model")
    message = r"^NoisyPPOPolicy: got σ of 12 tensors, expected 4: .*give noise_in and critic_noise"
    with pytest.raises(ValueError, match=message):
        PPO.load(tmp_path / "model", device="cpu")
    as_saved = {"policy_kwargs": {"noise_in": "all"}}
    loaded = PPO.load(tmp_path / "model", device="cpu", custom_objects=as_saved)
    seen = np.ones((3, 4), np.float32)
    assert (
        loaded.predict(seen, deterministic=True)[0] == model.predict(seen, deterministic=True)[0]
    ).all()


def test_samples_know_their_environment() -> None:
    model = agent("ppo", **PER_ENVIRONMENT)
    collect(model)
    buffer = model.rollout_buffer
    own = [buffer.observations[:, environment].copy() for environment in range(ENVIRONMENTS)]
    for data in buffer.get(16):
        for observation, row in zip(
            data.observations.observations, data.observations.rows, strict=True
        ):
            assert (own[row] == observation.numpy()).all(-1).any()


@pytest.mark.parametrize("rows", [1, ENVIRONMENTS, 7])
def test_as_many_observations_as_environments_have_their_draws(rows: int) -> None:
    policy = agent("ppo", **PER_ENVIRONMENT).learn(64).policy
    seen = torch.randn(rows, 4)

    @torch.no_grad()
    def found() -> list[torch.Tensor]:
        logits = policy.get_distribution(seen).distribution.logits
        return [logits, policy.predict_values(seen), policy(seen)[1]]

    drawn, other = noisynet.held(policy), noisynet.draw(policy)
    with noisynet.using(policy, drawn) if rows == ENVIRONMENTS else noisynet.mean_weights(policy):
        expected = found()
    assert all(map(torch.equal, found(), expected))
    # A draw in force is always used.
    with noisynet.using(policy, other):
        assert not any(map(torch.equal, found(), expected))


def test_a_rollout_of_draws_per_environment_wants_rows() -> None:
    model = agent("ppo", **PER_ENVIRONMENT)
    collect(model)
    with pytest.raises(ValueError, match="needs rollout_buffer_class=NoisyRolloutBuffer"):
        model.policy.evaluate_actions(torch.zeros(16, 4), torch.zeros(16))
