"""A noisy double DQN put together from its parts, without a config: it learns CartPole.

    python examples/by_hand.py

The noise alone explores. Training ends when the mean return of the last 20 games is 400, or after
`--steps`. Needs `pip install '.[train]'`.
"""

import argparse

import torch

from noisynet import envs, training
from noisynet.agents import QLearning, StepSize, adam
from noisynet.networks import NoiseSettings, build_q_network
from noisynet.replay import FrameReplay

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=80_000)
steps, warmup, n = parser.parse_args().steps, 1_000, 8
torch.set_num_threads(1)
torch.manual_seed(0)  # for the network's initial values
environments = envs.make("CartPole-v1", n, seed=0)
shape, actions = environments.observation_shape, environments.action_count
noise = NoiseSettings(sigma0=0.2)
network = build_q_network(shape, actions, torso_hidden=[128], head_hidden=128, noise=noise)
optimizer, step_size = adam(network.parameters()), StepSize(1e-3, 1e-4, steps - warmup)
agent = QLearning(network, optimizer, actions=actions, environments=n, warmup_steps=warmup)
replay = FrameReplay(capacity=50_000, environments=n, frame_shape=shape, frame_dtype="float32")
schedule = training.UpdateSchedule(warmup_steps=warmup, update_every=4)
learner = training.ReplayLearner(
    agent, replay, schedule, batch_size=128, n_step=10, target_every=500, step_size=step_size
)
source = training.ReplaySource(environments, agent, replay)
progress = training.Progress(steps=steps, solved_return=400, solved_games=20)
for event in training.TrainingLoop(progress, source, learner).run():
    if isinstance(event, training.GameFinished) and event.game % 20 == 0:
        print(f"step {event.step}: mean return {event.mean_return:.1f}", flush=True)
print(f"{progress.step} steps, {agent.updates} updates: mean return {progress.mean_return:.1f}")
