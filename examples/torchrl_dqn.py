"""Make TorchRL's DQN explore CartPole by learned noise alone: no ε, no schedule."""

import argparse

import torch
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, ReplayBuffer
from torchrl.envs import GymEnv, SerialEnv
from torchrl.modules import QValueActor
from torchrl.objectives import DQNLoss, HardUpdate

import noisynet
from noisynet.integrations.torchrl import NoisyPolicy, attach

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=40_000)
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()


def cartpoles(count: int, seed: int) -> SerialEnv:
    games = SerialEnv(count, lambda: GymEnv("CartPole-v1", categorical_action_encoding=True))
    games.set_seed(seed)
    return games


torch.manual_seed(arguments.seed)
games = cartpoles(8, arguments.seed)
net = nn.Sequential(nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2))
actor = QValueActor(
    noisynet.noisify(net),
    in_keys=["observation"],
    spec=games.action_spec_unbatched,
    action_space="categorical",
)
loss = DQNLoss(actor, action_space="categorical", double_dqn=True)
loss.make_value_estimator(gamma=0.99)
target = HardUpdate(loss, value_network_update_interval=100)
optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3, fused=True)
policy = NoisyPolicy(actor)
attach(optimizer, loss, policy)

replay = ReplayBuffer(storage=LazyTensorStorage(40_000), batch_size=64)
collector = Collector(
    games,
    policy,
    frames_per_batch=8,
    total_frames=arguments.steps,
    init_random_frames=min(1024, arguments.steps // 2),
    auto_register_policy_transforms=False,
)
for batch in collector:
    replay.extend(batch.reshape(-1))
    for _ in range(2):
        value = loss(replay.sample())["loss"]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        target.step()

observations = replay.sample()["observation"]
for name, ratio in noisynet.snr(net).items():
    print(f"snr/{name}: {ratio:.3f}")
print(f"effective_epsilon: {noisynet.behaviour(net, observations).effective_epsilon:.3f}")
with noisynet.mean_weights(actor), torch.no_grad():
    played = cartpoles(20, arguments.seed + 1).rollout(500, actor, break_when_all_done=True)
done = played["next", "done"].squeeze(-1).long()
steps = (done.cumsum(1) - done == 0).sum(1).float()
print(f"mean return of 20 games by the mean weights: {steps.mean():.1f}")
