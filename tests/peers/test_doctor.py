"""The doctor on the real libraries, where they are installed: the faults of their defaults."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import noisynet

pytestmark = [
    pytest.mark.peers,
    # What other people's packages warn of at import is theirs.
    pytest.mark.filterwarnings("ignore"),
]

B = 8


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


def said(diagnosis: noisynet.Diagnosis) -> dict[str, str]:
    print(diagnosis)
    return {finding.name: finding.status for finding in diagnosis}


def test_tianshou_s_collector_switches_its_layer_off() -> None:
    discrete = pytest.importorskip("tianshou.utils.net.discrete")
    dqn = pytest.importorskip("tianshou.algorithm.modelfree.dqn")
    data = pytest.importorskip("tianshou.data")
    envs = pytest.importorskip("tianshou.env")
    gymnasium = pytest.importorskip("gymnasium")

    class Net(nn.Module):
        def __init__(self, linear: Any) -> None:
            super().__init__()
            self.body = nn.Sequential(linear(4, 32), nn.ReLU(), linear(32, 2))

        def forward(self, obs: Any, state: Any = None, info: Any = None) -> tuple[Tensor, Any]:
            return self.body(torch.as_tensor(obs, dtype=torch.float32)), state

    vector = envs.DummyVectorEnv([lambda: gymnasium.make("CartPole-v1") for _ in range(2)])

    def examined(linear: Any) -> dict[str, str]:
        net = Net(linear)
        policy = dqn.DiscreteQLearningPolicy(
            model=net, action_space=gymnasium.spaces.Discrete(2), eps_training=0.0
        )
        collector = data.Collector(policy, vector)
        collector.reset()

        def act(_: Tensor) -> None:
            collector.collect(n_step=4)

        return said(noisynet.doctor(net, torch.randn(B, 4), act=act))

    found = examined(discrete.NoisyLinear)
    assert found["acting"] == "fail"
    assert found["state_dict"] == "fail"
    assert found["initial sigma"] == found["redraw"] == found["own draws"] == "pass"
    found = examined(noisynet.NoisyLinear)
    assert found["acting"] == found["state_dict"] == "pass"


def test_torchrl_s_loss_leaves_its_layer_s_noise_off() -> None:
    modules = pytest.importorskip("torchrl.modules")
    envs = pytest.importorskip("torchrl.envs")
    objectives = pytest.importorskip("torchrl.objectives")
    tensordict = pytest.importorskip("tensordict")
    random = envs.ExplorationType.RANDOM

    def examined(linear: Any, mode: Any, redraw_all: bool) -> dict[str, str]:
        net = nn.Sequential(linear(4, 32), nn.ReLU(), linear(32, 2))
        actor = modules.QValueActor(net, in_keys=["observation"], action_space="categorical")
        loss_module = objectives.DQNLoss(
            actor, action_space="categorical", delay_value=True, double_dqn=True
        )
        loss_module.make_value_estimator(gamma=0.99)
        if mode is not None:
            loss_module.deterministic_sampling_mode = mode
        batch = tensordict.TensorDict(
            {
                "observation": torch.randn(B, 4),
                "action": torch.randint(0, 2, (B, 1)),
                "next": {
                    "observation": torch.randn(B, 4),
                    "reward": torch.randn(B, 1),
                    "done": torch.zeros(B, 1, dtype=torch.bool),
                    "terminated": torch.zeros(B, 1, dtype=torch.bool),
                },
            },
            [B],
        )

        def act(observation: Tensor) -> Tensor:
            with envs.set_exploration_type(random), torch.no_grad():
                given = tensordict.TensorDict({"observation": observation}, [B])
                return actor(given)["action"]

        reached = actor if redraw_all else loss_module
        return said(
            noisynet.doctor(
                net,
                torch.randn(B, 4),
                act=act,
                loss=lambda: loss_module(batch)["loss"],
                resample=lambda: reached.apply(modules.reset_noise),
            )
        )

    found = examined(modules.NoisyLinear, None, redraw_all=False)
    assert found["acting"] == "pass"
    assert found["noise in the loss"] == found["sigma gradient"] == "fail"
    assert found["redraw"] == found["state_dict"] == "fail"
    assert found["initial sigma"] == "warn"
    # With the mode set and the redraw reaching the layers, what is left is whose draw is whose.
    found = examined(modules.NoisyLinear, random, redraw_all=True)
    assert found["noise in the loss"] == found["sigma gradient"] == found["redraw"] == "pass"
    assert found["draws in the loss"] == "fail"


def test_a_train_gated_layer_in_sb3_never_acts() -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    policies = pytest.importorskip("stable_baselines3.dqn.policies")

    class Gated(nn.Module):
        """A layer as many projects have it: noise in train mode only."""

        def __init__(self, p: int, q: int) -> None:
            super().__init__()
            bound = 1 / math.sqrt(p)
            self.weight_mu = nn.Parameter(torch.empty(q, p).uniform_(-bound, bound))
            self.weight_sigma = nn.Parameter(torch.full((q, p), 0.5 / math.sqrt(p)))
            self.bias_mu = nn.Parameter(torch.empty(q).uniform_(-bound, bound))
            self.bias_sigma = nn.Parameter(torch.full((q,), 0.5 / math.sqrt(p)))

        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                return functional.linear(x, self.weight_mu, self.bias_mu)
            q, p = self.weight_mu.shape
            e_i, e_j = (e.sign() * e.abs().sqrt() for e in (torch.randn(p), torch.randn(q)))
            weight = self.weight_mu + self.weight_sigma * torch.outer(e_j, e_i)
            return functional.linear(x, weight, self.bias_mu + self.bias_sigma * e_j)

    def examined(linear: Any) -> dict[str, str]:
        class QNetwork(policies.QNetwork):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self.q_net = nn.Sequential(
                    linear(self.features_dim, 32), nn.ReLU(), linear(32, int(self.action_space.n))
                )

        class Policy(policies.DQNPolicy):
            def make_q_net(self) -> Any:
                given = self._update_features_extractor(self.net_args, features_extractor=None)
                return QNetwork(**given).to(self.device)

        agent = sb3.DQN(
            Policy,
            "CartPole-v1",
            exploration_initial_eps=0.0,
            exploration_final_eps=0.0,
            learning_starts=0,
            device="cpu",
        )
        agent.learn(1)

        def act(observation: Tensor) -> Any:
            return agent.predict(observation.numpy(), deterministic=False)[0]

        return said(
            noisynet.doctor(
                agent.q_net,
                torch.randn(B, 4),
                act=act,
                target=agent.q_net_target,
                optimizer=agent.policy.optimizer,
                epsilon=agent.exploration_rate,
            )
        )

    found = examined(Gated)
    assert found["acting"] == "fail"
    assert found["optimizer"] == found["target"] == "pass"
    found = examined(noisynet.NoisyLinear)
    assert found["acting"] == found["target"] == "pass"
