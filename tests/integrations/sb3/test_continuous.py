"""TD3, DDPG, SAC, TQC and CrossQ under the host's own collection: does the actor's noise act?"""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("stable_baselines3")
pytest.importorskip("sb3_contrib")

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import TQC, CrossQ
from stable_baselines3 import DDPG, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

import noisynet
from noisynet.control import scale
from noisynet.integrations.sb3 import (
    NoiseCallback,
    NoiseControl,
    NoisyCrossQPolicy,
    NoisyDDPGPolicy,
    NoisySACPolicy,
    NoisyTD3Policy,
    NoisyTQCPolicy,
)

AGENTS: dict[str, tuple[Any, Any]] = {
    "td3": (TD3, NoisyTD3Policy),
    "ddpg": (DDPG, NoisyDDPGPolicy),
    "sac": (SAC, NoisySACPolicy),
    "tqc": (TQC, NoisyTQCPolicy),
    "crossq": (CrossQ, NoisyCrossQPolicy),
}
SQUASHED = ("sac", "tqc", "crossq")
ENVIRONMENTS = 3
SEEN = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)


class Short(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Pendulum whose episodes end after 4 to 7 steps, so that they do not end together."""

    lengths = itertools.cycle((5, 6, 7, 4))

    def reset(self, **options: Any) -> Any:
        self.left = next(self.lengths)
        return self.env.reset(**options)

    def step(self, action: Any) -> Any:
        seen, reward, ended, _, info = self.env.step(action)
        self.left -= 1
        return seen, reward, ended, self.left == 0, info


def agent(name: str, environment: Any = "Pendulum-v1", **options: Any) -> Any:
    algorithm, policy = AGENTS[name]
    short = environment == "Pendulum-v1"
    if short:
        Short.lengths = itertools.cycle((5, 6, 7, 4))
    environments = make_vec_env(
        environment,
        options.pop("environments", ENVIRONMENTS),
        seed=0,
        wrapper_class=Short if short else None,  # pyright: ignore[reportArgumentType]
    )
    kwargs = {"net_arch": [16, 16], **options.pop("policy_kwargs", {})}
    settings = {
        "learning_starts": 0,
        "learning_rate": 1e-3,
        "buffer_size": 1000,
        "batch_size": 16,
        "train_freq": 2,
        "device": "cpu",
        "seed": 0,
        **options,
    }
    return algorithm(policy, environments, policy_kwargs=kwargs, **settings)


class Watch(BaseCallback):
    """Note the draw in force, whether it moved the action, and what happened since."""

    def __init__(self) -> None:
        super().__init__()
        self.deviation: list[float] = []
        self.draws: list[torch.Tensor] = []
        self.updates: list[int] = []
        self.ended: list[np.ndarray] = []

    def _on_step(self) -> bool:
        policy = self.model.policy
        assert not policy.training, "the host collects in eval mode"
        held = policy._held[ENVIRONMENTS]
        observation, _ = policy.obs_to_tensor(self.model._last_obs)
        # Neither evaluation nor other forwards touch the draw that is held.
        self.model.predict(self.model._last_obs, deterministic=False)
        with torch.no_grad():
            moved = policy.greedy(observation, held) - policy.greedy(observation, None)
        self.deviation.append(float(moved.abs().mean()))
        if not isinstance(self.model, SAC | TQC | CrossQ):
            acted = policy.unscale_action(policy.greedy(observation, held).detach().numpy())
            assert np.allclose(self.locals["actions"], acted, atol=1e-6)
        self.draws.append(held.flats[0].clone())
        self.updates.append(self.model._n_updates)
        self.ended.append(self.locals["dones"].copy())
        return True


def redrawn(watch: Watch) -> list[list[bool]]:
    """Which environment's draw changed, from step to step."""
    pairs = zip(watch.draws[1:], watch.draws[:-1], strict=True)
    return [(now != then).any(1).tolist() for now, then in pairs]


@pytest.mark.parametrize("name", AGENTS)
def test_noise_acts_until_an_episode_ends_and_learns(name: str) -> None:
    model = agent(name)
    sigmas = [one.detach().clone() for one in noisynet.sigma_parameters(model.actor)]
    watch = Watch()
    model.learn(75, callback=watch)
    assert np.mean(watch.deviation) > 0.02
    assert all(len(draw.unique(dim=0)) == ENVIRONMENTS for draw in watch.draws)
    changed = redrawn(watch)
    assert changed == [ended.tolist() for ended in watch.ended[:-1]]
    assert any(one != [one[0]] * ENVIRONMENTS for one in changed), "they ended apart"
    assert watch.updates[-1] > 0
    for before, now in zip(sigmas, noisynet.sigma_parameters(model.actor), strict=True):
        assert (now - before).abs().mean() > 1e-4 * before.abs().mean()
    # The critics are the host's own.
    assert not noisynet.noisy_layers(model.critic)


@pytest.mark.parametrize("name", ["td3", "sac"])
def test_noise_redrawn_at_updates(name: str) -> None:
    watch = Watch()
    model = agent(name, policy_kwargs={"redraw": "update"}, gradient_steps=2)
    model.learn(30, callback=watch)
    steps = zip(watch.updates[1:], watch.updates[:-1], strict=True)
    assert [all(one) for one in redrawn(watch)] == [now > then for now, then in steps]


@pytest.mark.parametrize("name", AGENTS)
def test_predict_is_the_mean_weights_or_noise(name: str) -> None:
    model = agent(name)
    sure, _ = model.predict(SEEN, deterministic=True)
    with noisynet.mean_weights(model.actor), torch.no_grad():
        arguments = (True,) if name in SQUASHED else ()
        mean = model.actor(torch.from_numpy(SEEN), *arguments)
        assert torch.equal(model.policy.greedy(torch.from_numpy(SEEN), None), mean)
    assert np.allclose(sure, model.policy.unscale_action(mean.numpy()))
    assert np.array_equal(sure, model.predict(SEEN, deterministic=True)[0])
    # A squashed actor that is asked for its mode uses the mean weights, too, as exports do.
    if name in SQUASHED:
        with torch.no_grad():
            assert torch.equal(mean, model.actor(torch.from_numpy(SEEN), deterministic=True))
    # The network by itself, too.
    assert np.allclose(sure, model.actor.predict(SEEN, deterministic=True)[0])
    for one in (model, model.actor):
        noisy = [one.predict(SEEN, deterministic=False)[0] for _ in range(2)]
        assert not np.allclose(*noisy)
        assert not np.allclose(noisy[0], sure)
    # Equal observations have draws apart.
    rows, _ = model.predict(np.repeat(SEEN[:1], 8, axis=0), deterministic=False)
    assert len(np.unique(rows)) == 8


@pytest.mark.parametrize("name", AGENTS)
def test_the_critics_noise_is_an_option_with_draws_of_its_own(name: str) -> None:
    model = agent(name, policy_kwargs={"critic_noise": True})
    seen, action = torch.from_numpy(SEEN[:6]), torch.zeros(6, 1)
    critic = model.critic
    # CrossQ has none.
    target = copy.deepcopy(critic) if name == "crossq" else model.critic_target

    def q(network: Any) -> torch.Tensor:
        found = network(seen, action)
        return found if isinstance(found, torch.Tensor) else torch.cat(found, dim=1)

    with torch.no_grad(), noisynet.mean_weights(critic, target):
        assert torch.equal(q(critic), q(target))
    assert not torch.allclose(q(critic), q(critic))
    assert not torch.allclose(q(critic), q(target))
    sigmas = [one.detach().clone() for one in noisynet.sigma_parameters(critic)]
    model.learn(30)
    for before, now in zip(sigmas, noisynet.sigma_parameters(critic), strict=True):
        assert not torch.equal(before, now)


def test_the_output_of_each_critic_is_its_last_layer() -> None:
    model = agent("td3", policy_kwargs={"critic_noise": True, "noise_in": "last"})
    assert set(noisynet.noisy_layers(model.critic)) == {"qf0.4", "qf1.4"}
    assert set(noisynet.noisy_layers(model.actor)) == {"mu.4"}


@pytest.mark.parametrize("noise_in", ["all", "last"])
@pytest.mark.parametrize("name", SQUASHED)
def test_the_width_of_the_gaussian_has_no_noise(name: str, noise_in: str) -> None:
    actor = agent(name, policy_kwargs={"noise_in": noise_in}).actor
    layers = [name for name, part in actor.named_modules() if isinstance(part, nn.Linear)]
    expected = {"mu"} if noise_in == "last" else set(layers) - {"log_std"}
    assert set(noisynet.noisy_layers(actor)) == expected
    assert len(layers) == 4


def test_the_log_probability_is_the_gaussian_s_under_the_draw() -> None:
    actor = agent("sac").actor
    seen = torch.from_numpy(SEEN[:4])
    drawn = noisynet.draw(actor)
    with noisynet.using(actor, drawn), torch.no_grad():
        mean, log_std, _ = actor.get_action_dist_params(seen)
        torch.manual_seed(0)
        action, log_prob = actor.action_log_prob(seen)
    gaussian = torch.distributions.Normal(mean, log_std.exp())
    expected = gaussian.log_prob(action.atanh()) - torch.log(1 - action**2 + 1e-6)
    assert torch.allclose(log_prob, expected.sum(1), atol=1e-3)


@pytest.mark.parametrize("name", AGENTS)
def test_noise_that_adapts_acts_and_the_mean_weights_learn(name: str) -> None:
    model = agent(name, policy_kwargs={"learned": False})
    seen = torch.from_numpy(SEEN)
    learns = (lambda: model.actor.action_log_prob(seen)[0]) if name in SQUASHED else None
    with torch.no_grad():
        torch.manual_seed(0)
        found = learns() if learns else model.actor(seen)
        with noisynet.mean_weights(model.actor):
            torch.manual_seed(0)
            assert torch.equal(found, learns() if learns else model.actor(seen))
    before = [one.detach().clone() for one in noisynet.sigma_parameters(model.actor)]
    watch = Watch()
    control = NoiseControl(action_deviation=0.05, every=3, observations=30, factor=1.5)
    model.learn(60, callback=[control, watch, NoiseCallback(every=3)], log_interval=10_000)
    # It started above the target, and its scale goes down to it.
    logged = model.logger.name_to_value
    assert scale(model.actor) < 1
    assert logged["noise/measured"] > 0
    assert logged["noise/action_deviation"] > 0
    assert all(map(torch.equal, before, noisynet.sigma_parameters(model.actor)))


def test_the_critics_keep_their_scale() -> None:
    model = agent("td3", policy_kwargs={"critic_noise": True})
    model.learn(12, callback=NoiseControl(lambda _: 0.5))
    found = [scale(one) for one in (model.actor, model.actor_target, model.critic)]
    assert found == [0.5, 0.5, 1.0]


@pytest.mark.parametrize("options", [{}, {"critic_noise": True, "redraw": "update"}])
@pytest.mark.parametrize("name", AGENTS)
def test_a_saved_model_goes_on_as_it_was(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    model = agent(name, policy_kwargs=options)
    model.learn(30)
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model", env=model.get_env())
    sure = model.predict(SEEN, deterministic=True)[0]
    assert np.array_equal(sure, loaded.predict(SEEN, deterministic=True)[0])
    for key, value in model.policy.state_dict().items():
        assert torch.equal(value, loaded.policy.state_dict()[key])
    watch = Watch()
    loaded.learn(30, callback=watch, reset_num_timesteps=False)
    assert loaded.num_timesteps == 60
    assert np.mean(watch.deviation) > 0.01
    assert any(any(one) for one in redrawn(watch))
    # Policy and actor by themselves.
    for own in (model.policy, model.actor):
        own.save(tmp_path / "own")
        alone = type(own).load(tmp_path / "own", device="cpu")
        assert noisynet.noisy_layers(alone).keys() == noisynet.noisy_layers(own).keys()
        assert np.allclose(sure, alone.predict(SEEN, deterministic=True)[0])


def test_a_copied_policy_redraws_after_its_own_updates() -> None:
    policy = copy.deepcopy(agent("td3", policy_kwargs={"redraw": "update"}).policy)
    policy._collects = True
    seen = torch.from_numpy(SEEN[:3])
    first = policy._drawn_for(seen, False)
    assert policy._drawn_for(seen, False) is first
    policy.actor(seen).sum().backward()
    policy.actor.optimizer.step()
    assert policy._held == {}


@pytest.mark.parametrize("name", AGENTS)
def test_the_doctor_before_and_after(name: str) -> None:
    model = agent(name)
    batch = torch.from_numpy(SEEN[:8])

    def loss() -> torch.Tensor:
        found = model.actor.action_log_prob(batch)[0] if name in SQUASHED else model.actor(batch)
        values = model.critic(batch, found)
        return -(values if isinstance(values, torch.Tensor) else torch.cat(values, 1)).mean()

    def diagnosis() -> Any:
        return noisynet.doctor(
            model.actor,
            batch,
            act=lambda one: model.predict(one.numpy(), deterministic=False)[0],
            evaluate=lambda one: model.predict(one.numpy(), deterministic=True)[0],
            loss=loss,
            target=getattr(model, "actor_target", None),
            optimizer=model.actor.optimizer,
            continuous=True,
        )

    for steps in (0, 30):
        model.learn(steps)
        found = diagnosis()
        assert found.ok, str(found)
        assert found["policy"].message.startswith("action deviation 0.")


class Encoder(BaseFeaturesExtractor):
    """A layer that actor and critics may share."""

    def __init__(self, space: spaces.Box) -> None:
        super().__init__(space, 8)
        self.layer = nn.Linear(3, 8)

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        return self.layer(seen).relu()


@pytest.mark.parametrize("name", AGENTS)
def test_a_features_extractor_that_is_shared(name: str) -> None:
    kwargs = {"features_extractor_class": Encoder, "share_features_extractor": True}
    with pytest.raises(ValueError, match="pass critic_noise=True, or noise_in='head'"):
        agent(name, policy_kwargs=kwargs)
    for more in ({"critic_noise": True}, {"noise_in": "head"}):
        model = agent(name, policy_kwargs={**kwargs, **more}).learn(6)
        noisy = "features_extractor.layer" in noisynet.noisy_layers(model.actor)
        assert noisy == ("noise_in" not in more)
    kwargs["share_features_extractor"] = False
    model = agent(name, policy_kwargs=kwargs).learn(6)
    assert "features_extractor.layer" in noisynet.noisy_layers(model.actor)
    assert not noisynet.noisy_layers(model.critic)


def test_the_optimizers_have_every_parameter_and_spare_sigma_from_decay() -> None:
    kwargs = {"critic_noise": True, "optimizer_kwargs": {"weight_decay": 0.1}}
    policy = agent("td3", policy_kwargs=kwargs).policy
    for network in (policy.actor, policy.critic):
        means, sigmas = network.optimizer.param_groups
        assert (means["weight_decay"], sigmas["weight_decay"]) == (0.1, 0.0)
        assert sigmas["params"] == noisynet.sigma_parameters(network)
        assert len(means["params"]) + len(sigmas["params"]) == len(list(network.parameters()))
        assert network.optimizer.defaults["fused"]


@pytest.mark.parametrize("name", AGENTS)
def test_the_host_s_own_noise_left_on_is_told_how_to_turn_off(name: str) -> None:
    noise = NormalActionNoise(np.zeros(1), np.full(1, 0.1))
    with pytest.warns(UserWarning, match="turn it off with action_noise=None$") as seen:
        agent(name, action_noise=noise)
    assert [warning.filename for warning in seen] == [__file__]
    if name in SQUASHED:
        with pytest.warns(UserWarning, match="turn it off with use_sde=False$"):
            agent(name, use_sde=True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"redraw": "step"}, "redraw: got 'step', expected 'update' or 'episode'"),
        ({"critic_noise": True, "learned": False}, "critic_noise: got True with learned=False"),
    ],
)
def test_bad_options(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        agent("td3", policy_kwargs=options)


def test_a_buffer_that_does_not_tell_when_episodes_end() -> None:
    model = agent("td3")
    model.replay_buffer.dones = None
    with pytest.raises(TypeError, match="got a ReplayBuffer without `dones`"):
        model.learn(6)


def test_a_policy_of_another_algorithm() -> None:
    with pytest.raises(TypeError, match="NoisySACPolicy: got the algorithm TD3, expected SAC"):
        TD3(NoisySACPolicy, "Pendulum-v1", buffer_size=10, device="cpu")
