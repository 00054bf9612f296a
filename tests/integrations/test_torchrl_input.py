"""What users get wrong with TorchRL, one clear line each; and what the page tells them to do."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# The host warns of its own deprecated classes while it is imported.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("torchrl.collectors", reason="needs noisynet[torchrl]")

import torch
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.data import Categorical
from torchrl.modules import EGreedyModule, QValueActor
from torchrl.modules import NoisyLinear as StockNoisyLinear
from torchrl.objectives import DiscreteSACLoss, DQNLoss

import noisynet
from noisynet.integrations.torchrl import NoisyPolicy, attach


def actor(net: nn.Module | None = None) -> QValueActor:
    net = (
        noisynet.noisify(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
        if (net is None)
        else net
    )
    return QValueActor(
        net, in_keys=["observation"], spec=Categorical(2), action_space="categorical"
    )


def loss_of(network: Any) -> DQNLoss:
    return DQNLoss(network, action_space="categorical")


def adam(module: nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(module.parameters())


def test_epsilon_left_on_is_told_how_to_turn_off() -> None:
    one = actor()
    loss = loss_of(one)

    def policy(epsilon: float) -> TensorDictSequential:
        greedy = EGreedyModule(spec=Categorical(2), eps_init=epsilon, eps_end=0.0)
        return TensorDictSequential(NoisyPolicy(one), greedy)

    expected = "ε = 0.1; turn it off by leaving EGreedyModule out of the collector's policy$"
    with pytest.warns(UserWarning, match=expected) as seen:
        attach(adam(loss), loss, policy(0.1))
    assert [warning.filename for warning in seen] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attach(adam(loss), loss, policy(0.0))


def test_an_actor_without_noisy_layers() -> None:
    with pytest.raises(ValueError, match=r"^NoisyPolicy: finds no noisy layer in QValueActor; "):
        NoisyPolicy(actor(nn.Linear(4, 2)))
    with pytest.raises(ValueError, match=r"nothing to convert: it has no nn.Linear"):
        noisynet.noisify(actor(nn.Conv1d(4, 2, 1)))


def test_an_actor_with_the_host_s_own_noisy_layers() -> None:
    expected = r"^NoisyPolicy: got torchrl's NoisyLinear at 'module\.0\.module', which is silent"
    with pytest.raises(ValueError, match=expected):
        NoisyPolicy(actor(StockNoisyLinear(4, 2)))


def test_a_network_without_tensordicts() -> None:
    network: Any = noisynet.NoisyLinear(4, 2)
    with pytest.raises(TypeError, match="NoisyPolicy: got NoisyLinear, expected an actor that"):
        NoisyPolicy(network)


def test_a_loss_that_is_not_supported() -> None:
    one = actor()
    policy = NoisyPolicy(one)
    loss = DiscreteSACLoss.__new__(DiscreteSACLoss)
    expected = (
        "got the loss DiscreteSACLoss; supported are DQNLoss, .*, SACLoss, TD3Loss, DDPGLoss$"
    )
    with pytest.raises(TypeError, match=expected):
        attach(adam(one), loss, policy)


def test_a_policy_that_is_not_noisy() -> None:
    one = actor()
    loss = loss_of(one)
    with pytest.raises(TypeError, match="the policy QValueActor without a NoisyPolicy in it"):
        attach(adam(loss), loss, one)


def test_a_loss_of_the_policy_instead_of_the_actor() -> None:
    one = actor()
    policy = NoisyPolicy(one)
    loss = loss_of(policy)
    with pytest.raises(TypeError, match="DQNLoss: got a NoisyPolicy, expected the actor inside"):
        attach(adam(loss), loss, policy)


def test_a_loss_that_is_older_than_the_noise() -> None:
    plain = actor(nn.Sequential(nn.Linear(4, 2)))
    other = loss_of(plain)
    one = actor()
    expected = r"^DQNLoss: finds no noisy layer in QValueActor; build the loss after noisynet"
    with pytest.raises(ValueError, match=expected):
        attach(adam(other), other, NoisyPolicy(one))


def test_an_optimizer_that_does_not_have_sigma() -> None:
    one = actor()
    loss = loss_of(one)
    means = [mean for name, mean in one.named_parameters() if not name.endswith("_sigma")]
    expected = r"the optimizer has no .*0\.weight_sigma, .*; build it of loss\.parameters\(\)$"
    with pytest.raises(ValueError, match=expected):
        attach(torch.optim.Adam(means), loss, NoisyPolicy(one))


def test_what_was_refused_has_changed_nothing() -> None:
    one = actor()
    loss = loss_of(one)
    policy = NoisyPolicy(one)
    with pytest.raises(ValueError, match="the optimizer has no"):
        attach(torch.optim.Adam([torch.nn.Parameter(torch.ones(1))]), loss, policy)
    assert not policy._holds
    with pytest.raises(TypeError, match="without a NoisyPolicy"):
        attach(adam(loss), loss, TensorDictModule(nn.Linear(4, 2), ["a"], ["b"]))


@pytest.mark.filterwarnings("ignore")
def test_the_snippets_of_the_page_run(run_page: Callable[[str], dict[str, Any]]) -> None:
    names = run_page("torchrl.md")
    assert names["after"].ok
    assert not names["before"].ok


def test_the_example_runs(run_example: Callable[..., Any], tmp_path: Path) -> None:
    done = run_example("torchrl_dqn.py", "--steps", "800")
    assert done.returncode == 0, done.stderr
    figures = dict(line.split(": ") for line in done.stdout.splitlines() if ": " in line)
    assert 0 <= float(figures["effective_epsilon"]) < 1
    assert float(figures["mean return of 20 games by the mean weights"]) > 0
    assert not any(tmp_path.iterdir())
