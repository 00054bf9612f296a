"""Short seeded runs inside other people's agents, bit for bit as they were recorded.

    python -m tests.integrations.test_golden sb3-dqn …             records these anew, if meant
    python -m tests.integrations.test_golden sb3-dqn … --beside    adds this kind of machine

A recording holds the hash of every parameter and buffer after the run. On a machine of which there
is none the test is skipped.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import noisynet

from ..golden.recordings import machine, one_thread, recorded, with_recording

FILE = Path(__file__).with_name("golden.json")


def sb3_dqn() -> nn.Module:
    from stable_baselines3 import DQN
    from stable_baselines3.common.env_util import make_vec_env

    from noisynet.integrations.sb3 import NoisyDQNPolicy

    model = DQN(
        NoisyDQNPolicy,
        make_vec_env("CartPole-v1", 2, seed=0),
        exploration_initial_eps=0,
        exploration_final_eps=0,
        learning_starts=100,
        learning_rate=1e-3,
        target_update_interval=50,
        buffer_size=1000,
        policy_kwargs={"net_arch": [32, 32], "optimizer_kwargs": {"weight_decay": 1e-4}},
        seed=0,
        device="cpu",
    )
    return model.learn(600).policy


def sb3_ppo(**options: Any) -> nn.Module:
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    from noisynet.integrations.sb3 import NoisyPPOPolicy

    environments = make_vec_env("CartPole-v1", 4, seed=0)
    options.setdefault("policy_kwargs", {"noise_in": "all"})
    own: dict[str, Any] = {"n_steps": 32, "batch_size": 32, "n_epochs": 2}
    model = PPO(NoisyPPOPolicy, environments, seed=0, device="cpu", **own, **options)
    return model.learn(600).policy


def sb3_ppo_rows() -> nn.Module:
    from noisynet.integrations.sb3 import NoisyRolloutBuffer

    per_environment = {"draw_per_environment": True, "noise_in": "head"}
    return sb3_ppo(policy_kwargs=per_environment, rollout_buffer_class=NoisyRolloutBuffer)


def tianshou_dqn() -> nn.Module:
    import gymnasium
    import numpy as np
    from tianshou.algorithm import DQN
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Collector, CollectStats, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv
    from tianshou.trainer import OffPolicyTrainerParams
    from tianshou.utils.net.common import Net

    from noisynet.integrations.tianshou import NoisyDiscreteQLearningPolicy

    np.random.seed(0)  # noqa: NPY002 - the host's buffer samples by the global generator
    torch.manual_seed(0)
    actions = gymnasium.spaces.Discrete(2)
    actions.seed(0)
    games = DummyVectorEnv([lambda: gymnasium.make("CartPole-v1") for _ in range(4)])
    games.seed(0)
    policy = NoisyDiscreteQLearningPolicy(
        model=Net(state_shape=4, action_shape=2, hidden_sizes=[32, 32]), action_space=actions
    )
    algorithm = DQN(policy=policy, optim=AdamOptimizerFactory(lr=1e-3), target_update_freq=20)
    algorithm.run_training(
        OffPolicyTrainerParams(
            training_collector=Collector[CollectStats](policy, games, VectorReplayBuffer(2000, 4)),
            test_collector=None,
            max_epochs=1,
            epoch_num_steps=600,
            collection_step_num_env_steps=8,
            update_step_num_gradient_steps_per_sample=0.25,
            batch_size=32,
            verbose=False,
            show_progress=False,
        )
    )
    return algorithm


def torchrl_dqn() -> nn.Module:
    from torchrl.collectors import Collector
    from torchrl.data import LazyTensorStorage, ReplayBuffer
    from torchrl.envs import GymEnv, SerialEnv
    from torchrl.modules import QValueActor
    from torchrl.objectives import DQNLoss, HardUpdate

    from noisynet.integrations.torchrl import NoisyPolicy, attach

    torch.manual_seed(0)
    games = SerialEnv(4, lambda: GymEnv("CartPole-v1", categorical_action_encoding=True))
    games.set_seed(0)
    net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    actor = QValueActor(
        noisynet.noisify(net),
        in_keys=["observation"],
        spec=games.action_spec_unbatched,
        action_space="categorical",
    )
    loss = DQNLoss(actor, action_space="categorical", double_dqn=True)
    loss.make_value_estimator(gamma=0.99)
    target = HardUpdate(loss, value_network_update_interval=20)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3)
    policy = NoisyPolicy(actor)
    attach(optimizer, loss, policy)
    replay = ReplayBuffer(storage=LazyTensorStorage(2000), batch_size=32)
    collector = Collector(
        games,
        policy,
        frames_per_batch=8,
        total_frames=600,
        init_random_frames=64,
        auto_register_policy_transforms=False,
    )
    for batch in collector:
        replay.extend(batch.reshape(-1))
        optimizer.zero_grad()
        loss(replay.sample())["loss"].backward()
        optimizer.step()
        target.step()
    collector.shutdown()
    return net


KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "sb3-dqn": (sb3_dqn, ("stable-baselines3", "sb3-contrib")),
    "sb3-ppo": (sb3_ppo, ("stable-baselines3", "sb3-contrib")),
    "sb3-ppo, a draw per environment": (sb3_ppo_rows, ("stable-baselines3", "sb3-contrib")),
    "tianshou-dqn": (tianshou_dqn, ("tianshou",)),
    "torchrl-dqn": (torchrl_dqn, ("torchrl", "tensordict")),
}
"""What runs, and the packages of the host."""


def here(kind: str) -> dict[str, str]:
    return machine("numpy", "gymnasium", *KINDS[kind][1])


def trace(kind: str) -> str:
    """The hash of all that a network holds after its run: names, and values bit for bit."""
    with one_thread():
        network = KINDS[kind][0]()
    digest = hashlib.sha256()
    tensors = [*network.named_parameters(), *network.named_buffers()]
    for name, tensor in sorted(tensors, key=lambda one: one[0]):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


# What the hosts warn of is theirs.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_the_one_recorded(kind: str) -> None:
    host = kind.partition("-")[0]
    pytest.importorskip("stable_baselines3" if host == "sb3" else host)
    hash_ = recorded(json.loads(FILE.read_text()), kind, here(kind))
    if hash_ is None:
        pytest.skip(f"no bits are recorded for {here(kind)}")
    assert trace(kind) == hash_


def record(kinds: list[str], *, beside: bool) -> None:
    for kind in kinds:
        former = json.loads(FILE.read_text())
        recordings = with_recording(former, {kind: trace(kind)}, here(kind), beside=beside)
        FILE.write_text(json.dumps(recordings, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    record([one for one in sys.argv[1:] if one in KINDS], beside="--beside" in sys.argv)
