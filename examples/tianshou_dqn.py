"""Make Tianshou's DQN explore CartPole by learned noise alone: no ε, no schedule."""

import argparse

import gymnasium
import numpy as np
import torch
from tianshou.algorithm import DQN
from tianshou.algorithm.optim import TorchOptimizerFactory
from tianshou.data import Collector, CollectStats, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffPolicyTrainerParams
from tianshou.utils.net.common import Net

import noisynet
from noisynet.integrations.tianshou import NoisyDiscreteQLearningPolicy

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=40_000)
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()

torch.manual_seed(arguments.seed)
np.random.seed(arguments.seed)  # noqa: NPY002 - the host draws from it
games = DummyVectorEnv([lambda: gymnasium.make("CartPole-v1") for _ in range(8)])
games.seed(arguments.seed)
tests = DummyVectorEnv([lambda: gymnasium.make("CartPole-v1") for _ in range(10)])
tests.seed(arguments.seed + 1)

policy = NoisyDiscreteQLearningPolicy(
    model=Net(state_shape=4, action_shape=2, hidden_sizes=[128, 128]),
    action_space=gymnasium.spaces.Discrete(2),
)
algorithm = DQN(
    policy=policy,
    optim=TorchOptimizerFactory(torch.optim.Adam, lr=1e-3, fused=True),
    target_update_freq=100,
)
collector = Collector[CollectStats](policy, games, VectorReplayBuffer(40_000, 8))
collector.reset()
collector.collect(n_step=1024, random=True)
test_collector = Collector[CollectStats](policy, tests)
algorithm.run_training(
    OffPolicyTrainerParams(
        training_collector=collector,
        max_epochs=1,
        epoch_num_steps=arguments.steps,
        collection_step_num_env_steps=8,
        update_step_num_gradient_steps_per_sample=0.25,
        batch_size=64,
        verbose=False,
        show_progress=False,
    )
)

batch, _ = collector.buffer.sample(256)
for name, value in noisynet.snr(policy.model).items():
    print(f"snr/{name}: {value:.3f}")
print(f"effective_epsilon: {policy.behaviour(batch.obs).effective_epsilon:.3f}")
test_collector.reset()
returns = test_collector.collect(n_episode=20).returns
print(f"mean return of 20 games by the mean weights: {np.mean(returns):.1f}")
