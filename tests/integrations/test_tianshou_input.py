"""What users get wrong with Tianshou, one clear line each; and what the pages tell them to do."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tianshou", reason="needs noisynet[tianshou]")

import gymnasium
import numpy as np
from tianshou.algorithm import C51, DQN, IQN, QRDQN
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch, Collector, CollectStats, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.utils.net.common import Net
from tianshou.utils.net.discrete import NoisyLinear as StockNoisyLinear
from tianshou.utils.torch_utils import policy_within_training_step
from torch import nn

import noisynet
from noisynet.integrations.tianshou import (
    NoisyC51Policy,
    NoisyDiscreteQLearningPolicy,
    NoisyQRDQNPolicy,
)

ACTIONS = gymnasium.spaces.Discrete(2)


def net(**options: Any) -> Net:
    return Net(state_shape=4, action_shape=2, hidden_sizes=[8], **options)


def policy(model: nn.Module | None = None, **options: Any) -> NoisyDiscreteQLearningPolicy:
    model = net() if model is None else model
    return NoisyDiscreteQLearningPolicy(model=model, action_space=ACTIONS, **options)


def test_epsilon_left_on_is_told_how_to_turn_off() -> None:
    expected = "ε = 0.1; turn it off with eps_training=0$"
    with pytest.warns(UserWarning, match=expected) as seen:
        NoisyDiscreteQLearningPolicy(model=net(), action_space=ACTIONS, eps_training=0.1)
    assert [warning.filename for warning in seen] == [__file__]
    quiet = policy()
    with pytest.warns(UserWarning, match=expected) as seen:
        quiet.set_eps_training(0.1)
    assert [warning.filename for warning in seen] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet.set_eps_training(0.0)
    assert quiet.eps_training == 0


def test_a_model_without_linear_layers() -> None:
    with pytest.raises(ValueError, match=r"Policy: finds no nn.Linear in Conv1d, expected at"):
        policy(nn.Conv1d(4, 2, 1))


def test_a_model_with_the_host_s_own_noisy_layers() -> None:
    expected = r"tianshou's NoisyLinear at 'model.model.0', 'model.model.2', which is silent"
    with pytest.raises(ValueError, match=expected):
        policy(net(linear_layer=StockNoisyLinear))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"noise": "gaussian"}, "noise: got 'gaussian'"),
        ({"sigma0": -1.0}, "sigma0: got -1.0"),
    ],
)
def test_bad_options(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        policy(**options)


def test_options_for_a_model_that_is_noisy_already() -> None:
    with pytest.raises(ValueError, match="got noise and sigma0 for a model that is noisy already"):
        policy(noisynet.noisify(net()), sigma0=0.1)


@pytest.mark.parametrize("draws", [0, 1])
def test_too_few_draws_to_measure(draws: int) -> None:
    with pytest.raises(ValueError, match=f"draws: got {draws}, expected at least 2"):
        policy().behaviour(np.zeros((3, 4)), draws=draws)


SUPPORTED = (
    "there is NoisyDiscreteQLearningPolicy for DQN, NoisyC51Policy for C51 and RainbowDQN, "
    "NoisyQRDQNPolicy for QRDQN"
)


@pytest.mark.parametrize(
    ("algorithm", "kind", "expected"),
    [
        (QRDQN, NoisyDiscreteQLearningPolicy, "expected DQN"),
        (DQN, NoisyC51Policy, "expected C51 or RainbowDQN"),
        (IQN, NoisyQRDQNPolicy, "expected QRDQN"),
        (C51, NoisyQRDQNPolicy, None),
    ],
)
def test_an_algorithm_that_the_policy_is_not_for(
    algorithm: Any, kind: Any, expected: str | None
) -> None:
    one = kind(model=net(), action_space=ACTIONS)
    optimizer = AdamOptimizerFactory(lr=1e-3)
    if expected is None:
        # The host notices this one by itself: a C51 policy has atoms.
        with pytest.raises(AttributeError):
            algorithm(policy=one, optim=optimizer)
        return
    games = DummyVectorEnv([lambda: gymnasium.make("CartPole-v1")])
    agent = algorithm(policy=one, optim=optimizer, target_update_freq=10)
    collector = Collector[CollectStats](one, games, VectorReplayBuffer(100, 1))
    collector.reset()
    collector.collect(n_step=20, random=True)
    message = f"{kind.__name__}: got the algorithm {algorithm.__name__}, {expected}; {SUPPORTED}"
    with (
        policy_within_training_step(one),
        pytest.raises(TypeError, match=f"^{re.escape(message)}$"),
    ):
        agent.update(sample_size=8, buffer=collector.buffer)


def test_a_loop_without_an_algorithm_of_the_host_may_use_the_policy() -> None:
    one = policy().train()
    batch = Batch(obs=np.ones((3, 4)), info=[None] * 3)
    with policy_within_training_step(one):
        first, second = one(batch).logits, one(batch).logits
    assert first.requires_grad
    assert not np.allclose(first.detach(), second.detach())


def test_the_snippets_of_the_page_run(run_page: Callable[[str], dict[str, Any]]) -> None:
    names = run_page("tianshou.md")
    assert names["after"].ok
    assert not names["before"].ok


def test_the_example_runs(run_example: Callable[..., Any], tmp_path: Path) -> None:
    done = run_example("tianshou_dqn.py", "--steps", "800")
    assert done.returncode == 0, done.stderr
    figures = dict(line.split(": ") for line in done.stdout.splitlines())
    assert 0 < float(figures["effective_epsilon"]) < 1
    assert float(figures["mean return of 20 games by the mean weights"]) > 0
    assert not any(tmp_path.iterdir())
