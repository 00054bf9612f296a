"""DQN and QR-DQN under Stable-Baselines3's own collection: does the noise act, differ and learn?"""

from __future__ import annotations

import base64
import copy
import json
import pickletools
import re
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("stable_baselines3")
pytest.importorskip("sb3_contrib")

import numpy as np
import torch
from sb3_contrib import QRDQN
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv, SimpleMultiObsEnv
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from torch import nn
from torch.nn import functional

import noisynet
from noisynet.integrations.sb3 import NoiseCallback, NoisyDQNPolicy, NoisyQRDQNPolicy

PAGE = Path(__file__).resolve().parents[3] / "docs" / "sb3.md"
AGENTS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "dqn": (DQN, NoisyDQNPolicy, {}),
    "qrdqn": (QRDQN, NoisyQRDQNPolicy, {"n_quantiles": 5}),
}
ENVIRONMENTS = 4
OPTIONS = {
    "exploration_initial_eps": 0.0,
    "exploration_final_eps": 0.0,
    "learning_starts": 0,
    "learning_rate": 1e-3,
    "buffer_size": 2000,
    "train_freq": 3,
    "target_update_interval": 40,
    "device": "cpu",
    "seed": 0,
}


def agent(name: str, environment: Any = "CartPole-v1", **options: Any) -> Any:
    algorithm, policy, own = AGENTS[name]
    kwargs = {"net_arch": [16], **own, **options.pop("policy_kwargs", {})}
    environments = make_vec_env(environment, options.pop("environments", ENVIRONMENTS), seed=0)
    policy = options.pop("policy", policy)
    return algorithm(policy, environments, policy_kwargs=kwargs, **{**OPTIONS, **options})


class Watch(BaseCallback):
    """Compare each action taken with that of the mean weights, and note the draw in force."""

    def __init__(self) -> None:
        super().__init__()
        self.changed: list[np.ndarray] = []
        self.draws: list[tuple[int, torch.Tensor]] = []

    def _on_step(self) -> bool:
        assert not self.model.policy.training, "the host collects in eval mode"
        mean, _ = self.model.predict(self.model._last_obs, deterministic=True)
        self.changed.append(self.locals["actions"] != mean)
        held = getattr(self.model.policy, "_held", {}).get(ENVIRONMENTS)
        if held is not None:
            self.draws.append((self.model._n_updates, held.flats[0].clone()))
        return True


def watched(model: Any, steps: int = 480) -> Watch:
    watch = Watch()
    model.learn(steps, callback=watch)
    return watch


def require_exploration(watch: Watch) -> None:
    share = np.mean(watch.changed)
    assert 0.02 < share < 0.9, f"the noise changes {share:.1%} of the actions"


@pytest.mark.parametrize("name", AGENTS)
def test_noise_acts_in_the_host_s_own_collection(name: str) -> None:
    model = agent(name)
    sigmas = [one.detach().clone() for one in noisynet.sigma_parameters(model.policy.noisy_network)]
    watch = watched(model)
    require_exploration(watch)
    # No two environments have the same noise, and an update brings new noise, nothing else does.
    assert all(len(draw) == len(draw.unique(dim=0)) == ENVIRONMENTS for _, draw in watch.draws)
    same = [torch.equal(one, other) for (_, one), (_, other) in pairwise(watch.draws)]
    updates = [count for count, _ in watch.draws]
    assert same == [one == other for one, other in pairwise(updates)]
    assert set(same) == {True, False}
    # σ learns.
    for before, now in zip(
        sigmas, noisynet.sigma_parameters(model.policy.noisy_network), strict=True
    ):
        assert now.grad is not None
        assert now.grad.abs().max() > 0
        assert (now - before).abs().mean() > 0.005 * before.abs().mean()


class TrainGated(nn.Linear):
    """Layer that is noisy in train mode alone, as those of several libraries are."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(input)
        noise = torch.randn_like(self.weight) * 0.5 / self.in_features**0.5
        return functional.linear(input, self.weight + noise, self.bias)


class TrainGatedPolicy(DQNPolicy):
    def make_q_net(self) -> QNetwork:
        network = super().make_q_net()
        for index, part in enumerate(network.q_net):
            if isinstance(part, nn.Linear):
                network.q_net[index] = TrainGated(part.in_features, part.out_features)
        return network


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="the host collects in eval mode")
def test_a_layer_that_is_noisy_in_train_mode_never_explores() -> None:
    require_exploration(watched(agent("dqn", policy=TrainGatedPolicy)))


@pytest.mark.parametrize("name", AGENTS)
def test_online_and_target_network_draw_apart_in_the_loss(name: str) -> None:
    policy = agent(name).policy
    online = policy.noisy_network
    target = policy.q_net_target if name == "dqn" else policy.quantile_net_target
    observation = torch.randn(6, 4)
    with noisynet.mean_weights(online, target):
        assert torch.equal(online(observation), target(observation))
    assert not torch.allclose(online(observation), target(observation))
    assert not torch.allclose(online(observation), online(observation))
    # One draw for the whole minibatch: equal rows stay equal.
    rows = online(observation[:1].expand(6, 4))
    assert torch.allclose(rows, rows[:1].expand_as(rows))


@pytest.mark.parametrize("name", AGENTS)
def test_predict_is_the_mean_weights_or_noise(name: str) -> None:
    model = agent(name)
    observation = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    sure, _ = model.predict(observation, deterministic=True)
    with noisynet.mean_weights(model.policy):
        q = model.policy.noisy_network(torch.from_numpy(observation))
    q = q.mean(1) if name == "qrdqn" else q
    assert np.array_equal(sure, q.argmax(-1).numpy())
    noisy = [model.predict(observation, deterministic=False)[0] for _ in range(2)]
    assert 0 < np.mean(noisy[0] != sure) < 1
    assert not np.array_equal(*noisy)
    # Outside the host's collection also after training.
    model.learn(40)
    noisy = [model.predict(observation[:ENVIRONMENTS])[0] for _ in range(50)]
    assert len({tuple(actions) for actions in noisy}) > 1


@pytest.mark.parametrize("name", AGENTS)
def test_a_saved_model_goes_on_as_it_was(name: str, tmp_path: Path) -> None:
    model = agent(name)
    model.learn(80)
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model", env=model.get_env())
    observation = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    assert np.array_equal(
        model.predict(observation, deterministic=True)[0],
        loaded.predict(observation, deterministic=True)[0],
    )
    drawn = noisynet.draw(model.policy.noisy_network)
    values = []
    for one in (model, loaded):
        with noisynet.using(one.policy.noisy_network, drawn), torch.no_grad():
            values.append(one.policy.noisy_network(torch.from_numpy(observation)))
    assert torch.equal(*values)
    watch = Watch()
    loaded.learn(80, callback=watch, reset_num_timesteps=False)
    assert loaded.num_timesteps >= 160
    assert len({tuple(draw.flatten().tolist()) for _, draw in watch.draws}) > 5


def test_a_policy_alone_is_saved_with_its_options(tmp_path: Path) -> None:
    policy = agent("dqn", policy_kwargs={"noise_in": "last", "noise": "independent"}).policy
    policy.save(tmp_path / "policy")
    loaded = NoisyDQNPolicy.load(tmp_path / "policy")
    assert list(noisynet.noisy_layers(loaded.q_net)) == ["q_net.2"]
    assert noisynet.noisy_layers(loaded.q_net)["q_net.2"].noise == "independent"


def test_a_plain_model_s_weights_are_the_means_to_begin_with(tmp_path: Path) -> None:
    plain = agent("dqn", policy="MlpPolicy").learn(20)
    model = agent("dqn", seed=1)
    message = r"^NoisyDQNPolicy: got weights without σ.*get_parameters\(\)\['policy'\]}, exact_ma"
    with pytest.raises(ValueError, match=message):
        model.set_parameters(plain.get_parameters())
    plain.save(tmp_path / "plain")
    with pytest.raises(ValueError, match=message):
        DQN.load(tmp_path / "plain", custom_objects={"policy_class": NoisyDQNPolicy})
    model.set_parameters({"policy": plain.get_parameters()["policy"]}, exact_match=False)
    seen = torch.from_numpy(np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32))
    for ours, theirs in ((model.q_net, plain.q_net), (model.q_net_target, plain.q_net_target)):
        with noisynet.mean_weights(ours):
            assert torch.equal(ours(seen), theirs(seen))
    watch = Watch()
    model.learn(20, callback=watch)
    assert len({tuple(draw.flatten().tolist()) for _, draw in watch.draws}) > 1


def test_a_saved_model_names_its_policy_by_the_public_module(tmp_path: Path) -> None:
    # So that what is saved today loads when the policy has moved to another file.
    agent("dqn").save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model.zip") as file:
        stored = json.loads(file.read("data"))["policy_class"][":serialized:"]
    told = {argument for _, argument, _ in pickletools.genops(base64.b64decode(stored))}
    assert {"noisynet.integrations.sb3", "NoisyDQNPolicy"} <= told


def test_a_copied_policy_redraws_after_its_own_updates() -> None:
    policy = copy.deepcopy(agent("dqn").policy)
    policy._collects = True
    seen = torch.zeros(3, 4)
    first = policy._drawn_for(seen, deterministic=False)
    assert policy._drawn_for(seen, deterministic=False) is first
    policy.q_net(torch.randn(5, 4)).sum().backward()
    policy.optimizer.step()
    assert policy._held == {}


@pytest.mark.parametrize("steps", [10, 60])
def test_a_run_that_a_callback_stops_leaves_no_draw_in_force(steps: int) -> None:
    """Before the first update, and between two."""
    model = agent("dqn")
    model.learn(200, callback=lambda one, _: one["self"].num_timesteps < steps)
    assert model.num_timesteps < 200
    observation = np.full((1, 4), 0.1, np.float32)
    seen = {tuple(q(model, observation)) for _ in range(10)}
    assert len(seen) == 10


def q(model: Any, observation: np.ndarray) -> list[float]:
    """The Q-values that `predict` chooses by."""
    policy, found = model.policy, []
    greedy = policy.greedy

    def watched(seen: Any, drawn: Any) -> Any:
        found.append(policy.action_values(seen, drawn).detach())
        return greedy(seen, drawn)

    policy.greedy = watched
    try:
        model.predict(observation, deterministic=False)
    finally:
        del policy.greedy
    return found[0].flatten().tolist()


def test_a_seed_repeats_a_run_and_logging_does_not_change_it() -> None:
    # The host seeds torch when it builds a model.
    runs = [agent("dqn").learn(200), agent("dqn").learn(200, callback=NoiseCallback(every=20))]
    for one, other in zip(*(run.policy.parameters() for run in runs), strict=True):
        assert torch.equal(one, other)


def test_what_the_noise_does_stands_in_the_host_s_log() -> None:
    model = agent("dqn")
    callback = NoiseCallback(every=50, observations=24)
    model.learn(200, callback=callback, log_interval=10_000)
    assert sum(map(len, callback._seen)) == 24
    logged = model.logger.name_to_value
    assert logged["noise/snr/q_net.0"] == pytest.approx(
        noisynet.snr(model.q_net)["q_net.0"], rel=0.1
    )
    assert logged["noise/sigma/q_net.2"] > 0
    assert 0.01 < logged["noise/effective_epsilon"] < 0.9


@pytest.mark.parametrize("name", AGENTS)
def test_images_and_dicts(name: str) -> None:
    images = lambda: FakeImageEnv(  # noqa: E731
        screen_height=40, screen_width=40, n_channels=1, discrete=True
    )
    model = agent(name, images, buffer_size=100, batch_size=4, environments=2)
    layers = noisynet.noisy_layers(model.policy.noisy_network)
    assert "features_extractor.linear.0" in layers
    model.learn(12)
    model = agent(name, SimpleMultiObsEnv, buffer_size=100, batch_size=4, environments=2)
    layers = noisynet.noisy_layers(model.policy.noisy_network)
    assert any("extractors" in layer for layer in layers)
    model.learn(12, callback=NoiseCallback(every=6))
    assert "noise/effective_epsilon" in model.logger.name_to_value


@pytest.mark.parametrize(
    ("noise_in", "expected"),
    [
        ("all", {"features_extractor.linear.0", "q_net.0", "q_net.2"}),
        ("head", {"q_net.0", "q_net.2"}),
        ("last", {"q_net.2"}),
    ],
)
def test_where_the_noise_is(noise_in: str, expected: set[str]) -> None:
    images = lambda: FakeImageEnv(  # noqa: E731
        screen_height=40, screen_width=40, n_channels=1, discrete=True
    )
    kwargs = {"noise_in": noise_in, "sigma0": 0.4}
    policy = agent("dqn", images, buffer_size=10, environments=1, policy_kwargs=kwargs).policy
    layers = noisynet.noisy_layers(policy.q_net)
    assert set(layers) == set(noisynet.noisy_layers(policy.q_net_target)) == expected
    for layer in layers.values():
        assert torch.allclose(layer.weight_sigma, torch.tensor(0.4 / layer.weight.shape[1] ** 0.5))


class Dueling(QNetwork):
    """A network of the user's own, with two output layers."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.q_net = nn.Sequential(nn.Linear(self.features_dim, 16), nn.ReLU())
        self.advantage = nn.Linear(16, int(self.action_space.n))
        self.value = nn.Linear(16, 1)

    def forward(self, obs: Any) -> torch.Tensor:
        hidden = self.q_net(self.extract_features(obs, self.features_extractor))
        advantage = self.advantage(hidden)
        return self.value(hidden) + advantage - advantage.mean(1, keepdim=True)


class DuelingPolicy(DQNPolicy):
    def make_q_net(self) -> QNetwork:
        return Dueling(**self._update_features_extractor(self.net_args)).to(self.device)


class NoisyDuelingPolicy(NoisyDQNPolicy, DuelingPolicy):
    pass


def test_the_output_layers_of_a_dueling_network_are_both_noisy() -> None:
    model = agent("dqn", policy=NoisyDuelingPolicy, policy_kwargs={"noise_in": "last"})
    assert set(noisynet.noisy_layers(model.q_net)) == {"advantage", "value"}
    noise = NoiseCallback(every=8)
    model.learn(80, callback=noise)
    assert noise.figures()["effective_epsilon"] > 0


def test_weight_decay_leaves_sigma_alone() -> None:
    policy = agent("dqn", policy_kwargs={"optimizer_kwargs": {"weight_decay": 0.1}}).policy
    means, sigmas = policy.optimizer.param_groups
    assert (means["weight_decay"], sigmas["weight_decay"]) == (0.1, 0.0)
    assert sigmas["params"] == noisynet.sigma_parameters(policy.q_net)
    assert len(means["params"]) == len(sigmas["params"]) == 4


def test_adam_is_fused_unless_the_user_says_otherwise() -> None:
    assert agent("dqn").policy.optimizer.defaults["fused"]
    plain = agent("dqn", policy_kwargs={"optimizer_kwargs": {"foreach": True}}).policy.optimizer
    assert not plain.defaults["fused"]
    assert plain.defaults["foreach"]


def test_qrdqn_accepts_optimizer_options_only_with_the_class() -> None:
    """The host replaces `optimizer_kwargs` with its own unless there is an `optimizer_class`."""
    options = {"optimizer_kwargs": {"eps": 0.005 / 256}}
    chosen = {"optimizer_class": torch.optim.Adam, **options}
    defaults = agent("qrdqn", policy_kwargs=chosen).policy.optimizer.defaults
    assert defaults["eps"] == 0.005 / 256
    assert defaults["fused"]
    ignored = agent("qrdqn", policy_kwargs=options).policy.optimizer.defaults
    assert ignored["eps"] != 0.005 / 256


def test_the_page_shows_what_the_doctor_says_of_the_default_network() -> None:
    model = agent("dqn", policy_kwargs={"net_arch": None})
    found = noisynet.doctor(
        model.q_net,
        torch.randn(8, 4),
        act=lambda batch: model.predict(batch.numpy(), deterministic=False)[0],
        evaluate=lambda batch: model.predict(batch.numpy(), deterministic=True)[0],
        target=model.q_net_target,
    )
    blocks = re.findall(r"^```text\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    of_stock_layers, of_ours = (one for one in blocks if "acting: noise is" in one)
    assert set(of_ours.splitlines()) <= set(str(found).splitlines())
    names = ", ".join(map(repr, noisynet.noisy_layers(model.q_net)))
    assert f"noise is off in {names} when the agent acts" in of_stock_layers


# The bar that the host takes from tqdm says of itself that it is experimental.
@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_the_progress_bar() -> None:
    model = agent("dqn").learn(40, progress_bar=True)
    assert model.num_timesteps == 48
