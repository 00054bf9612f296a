"""What users do with a policy: copy and denoise it, compile it, ask it from several threads."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from typing import Any

import pytest

pytest.importorskip("stable_baselines3")
pytest.importorskip("sb3_contrib")

import numpy as np
import torch
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env

import noisynet
from noisynet.integrations.sb3 import (
    NoiseCallback,
    NoiseControl,
    NoisyDQNPolicy,
    NoisyPPOPolicy,
    NoisyRecurrentPPOPolicy,
    NoisySACPolicy,
    NoisyTD3Policy,
)

ROLLOUT: dict[str, Any] = {"n_steps": 8, "batch_size": 16, "n_epochs": 1}
REPLAY: dict[str, Any] = {"learning_starts": 4, "batch_size": 4, "buffer_size": 100}
NO_EPSILON: dict[str, Any] = {"exploration_initial_eps": 0, "exploration_final_eps": 0}
AGENTS: dict[str, tuple[Any, Any, str, dict[str, Any]]] = {
    "ppo": (PPO, NoisyPPOPolicy, "CartPole-v1", ROLLOUT),
    "rppo": (RecurrentPPO, NoisyRecurrentPPOPolicy, "CartPole-v1", ROLLOUT),
    "dqn": (DQN, NoisyDQNPolicy, "CartPole-v1", {**REPLAY, **NO_EPSILON}),
    "td3": (TD3, NoisyTD3Policy, "Pendulum-v1", REPLAY),
    "sac": (SAC, NoisySACPolicy, "Pendulum-v1", REPLAY),
}


def agent(name: str) -> Any:
    algorithm, policy, environment, options = AGENTS[name]
    environments = make_vec_env(environment, 2, seed=0)
    kwargs = {"net_arch": [16], "noise_in": "all"}
    return algorithm(policy, environments, policy_kwargs=kwargs, device="cpu", seed=0, **options)


def seen_by(model: Any, rows: int = 64) -> np.ndarray:
    size = (rows, *model.observation_space.shape)
    return np.random.default_rng(0).normal(size=size).astype(np.float32)


@pytest.mark.parametrize("name", AGENTS)
def test_a_copy_is_denoised_after_training(name: str) -> None:
    model = agent(name).learn(32)
    seen = seen_by(model)
    if name == "sac":
        # Its last minibatch leaves no graph, but a loss by hand does.
        model.actor.action_log_prob(torch.from_numpy(seen))
    sure = model.predict(seen, deterministic=True)[0]
    for part in (model.policy, model.policy.noisy_network):
        plain = noisynet.denoise(copy.deepcopy(part))
        assert not noisynet.noisy_layers(plain)
        assert np.allclose(plain.predict(seen, deterministic=True)[0], sure)
        sampled = [plain.predict(seen, deterministic=False)[0] for _ in range(2)]
        # Without noise, DQN and TD3 have nothing to sample from.
        assert np.allclose(sampled[0], sure) == np.allclose(*sampled) == (name in ("dqn", "td3"))


def test_a_denoised_policy_that_has_never_collected() -> None:
    plain = noisynet.denoise(agent("ppo").policy)
    seen = torch.randn(3, 4)
    assert torch.equal(plain(seen)[1], plain.predict_values(seen))
    plain = noisynet.denoise(agent("rppo").policy)
    memory, starts = torch.zeros(2, 1, 3, 256).unbind(), torch.ones(3)
    values = plain(seen, RNNStates(memory, memory), starts)[1]
    assert torch.equal(values, plain.predict_values(seen, memory, starts))


@pytest.mark.parametrize("part", ["policy", "network"])
def test_two_threads_predict(part: str) -> None:
    """B enters while A is inside, and leaves after A, unless it has to wait for A."""
    model = agent("td3")
    asked = model.policy if part == "policy" else model.actor
    seen = seen_by(model)
    sure = asked.predict(seen, deterministic=True)[0]
    a_inside, b_inside, a_left = (threading.Event() for _ in range(3))

    def interleave(*_: Any) -> None:
        if threading.current_thread().name == "A":
            a_inside.set()
            b_inside.wait(0.3)
        else:
            b_inside.set()
            a_left.wait(10)

    found: dict[str, np.ndarray] = {}

    def predict() -> None:
        name = threading.current_thread().name
        if name == "B":
            a_inside.wait(10)
        found[name] = asked.predict(seen, deterministic=True)[0]
        if name == "A":
            a_left.set()

    model.actor.mu.register_forward_pre_hook(interleave)
    threads = [threading.Thread(target=predict, name=name) for name in "AB"]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert np.array_equal(found["A"], sure)
    assert np.array_equal(found["B"], sure)
    assert not any(layer.is_off for layer in noisynet.noisy_layers(model.actor).values())


@pytest.mark.parametrize("name", ["ppo", "dqn", "td3"])
def test_a_compiled_policy_learns_under_both_callbacks(name: str) -> None:
    model = agent(name)
    compiled = lambda module: torch.compile(module, backend="eager")  # noqa: E731
    if name == "dqn":
        model.policy.q_net = compiled(model.policy.q_net)
    if name == "td3":
        model.policy.actor = compiled(model.policy.actor)
    model.policy = compiled(model.policy)
    if name != "ppo":
        model._create_aliases()
    target = {"action_deviation" if name == "td3" else "effective_epsilon": 0.05}
    callbacks = [NoiseCallback(every=8), NoiseControl(every=8, **target)]
    model.learn(32, callback=callbacks, log_interval=10_000)
    assert noisynet.control.scale(model.policy) != 1
    assert any(name.startswith("noise/snr/") for name in model.logger.name_to_value)


def buffers_left(policy: Any) -> list[bool]:
    buffers: list[Any] = []
    for _ in range(3):
        model = DQN(policy, "CartPole-v1", buffer_size=10, device="cpu", **NO_EPSILON)
        buffers.append(weakref.ref(model.replay_buffer))
    gc.collect()
    return [buffer() is not None for buffer in buffers]


def test_a_loop_over_models_keeps_the_last_one_alone() -> None:
    # Reading a frame's variables would keep the former model, too, before Python 3.13.
    assert buffers_left(NoisyDQNPolicy) == buffers_left("MlpPolicy") == [False, False, True]
