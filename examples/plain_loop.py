"""A complete noisy double DQN in one file, with only the layers of noisynet.

    python examples/plain_loop.py --steps 50000

The network is plain PyTorch until `noisify`; `attach` redraws the noise of both networks after
every optimizer step; `mean_weights` plays without noise. There is no ε-greedy. It needs gymnasium
and numpy: `pip install '.[train]'`.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import nn
from torch.nn import functional

import noisynet


@dataclass(frozen=True)
class Settings:
    """The settings of a run."""

    environment: str = "CartPole-v1"
    steps: int = 50_000
    seed: int = 0
    learning_rate: float = 1e-3
    """Falls to a tenth over the run."""
    batch_size: int = 128
    discount: float = 0.99
    n_step: int = 10
    warmup_steps: int = 1_000
    """Uniformly random steps before learning: a fresh noisy network may choose only one action."""
    update_every: int = 2
    target_every: int = 500
    sigma0: float = 0.2


def windows(
    pending: list[tuple[Any, ...]], ended: bool, n_step: int, discount: float
) -> list[tuple[Any, ...]]:
    """Pop complete windows, or all at an episode's end: (observation, action, return, γ^m)."""
    done = []
    while pending and (len(pending) >= n_step or ended):
        taken = pending[:n_step]
        reward = sum(discount**k * one[2] for k, one in enumerate(taken))
        done.append((*taken[0][:2], np.float32(reward), np.float32(discount ** len(taken))))
        pending.pop(0)
    return done


def train(settings: Settings) -> nn.Module:
    """Train on one environment, and return the network."""
    torch.manual_seed(settings.seed)
    generator = np.random.Generator(np.random.PCG64(settings.seed))
    environment: Any = gymnasium.make(settings.environment)
    size, actions = environment.observation_space.shape[0], int(environment.action_space.n)

    network = nn.Sequential(
        nn.Linear(size, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, actions)
    )
    # The first layer stays plain, as convolutions do on Atari.
    network = noisynet.noisify(network, where=lambda name, _: name != "0", sigma0=settings.sigma0)
    target = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    noisynet.attach(optimizer, network, target)

    updates = settings.steps // settings.update_every
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=updates)
    replay: list[tuple[Any, ...]] = []
    pending: list[tuple[Any, ...]] = []
    returns: list[float] = []
    total = 0.0
    observation, _ = environment.reset(seed=settings.seed)
    for step in range(settings.steps):
        if step < settings.warmup_steps:
            action = int(generator.integers(actions))
        else:
            with torch.no_grad():  # greedy: the noise explores
                action = int(network(torch.from_numpy(observation)).argmax())
        following, reward, terminated, truncated, _ = environment.step(action)
        total += float(reward)
        pending.append((observation, action, float(reward)))
        ended = terminated or truncated
        for *transition, power in windows(pending, ended, settings.n_step, settings.discount):
            replay.append((*transition, np.float32(0) if terminated else power, following))
        observation = following
        if ended:
            returns.append(total)
            if len(returns) % 20 == 0:
                print(f"step {step}: mean return {np.mean(returns[-20:]):.1f}", flush=True)
            total = 0.0
            observation, _ = environment.reset()
        if step < settings.warmup_steps or step % settings.update_every:
            continue
        observation_tm1, action_tm1, return_t, discount_t, observation_t = (
            torch.from_numpy(np.stack(column))
            for column in zip(
                *(replay[i] for i in generator.integers(len(replay), size=settings.batch_size)),
                strict=True,
            )
        )
        with torch.no_grad():  # double: separate draws for the choice and the target
            with noisynet.using(network, noisynet.draw(network)):
                best = network(observation_t).argmax(-1, keepdim=True)
            q_t = target(observation_t).gather(-1, best).squeeze(-1)
        target_tm1 = return_t + discount_t * q_t
        q_tm1 = network(observation_tm1).gather(-1, action_tm1[:, None]).squeeze(-1)
        loss = functional.huber_loss(q_tm1, target_tm1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()  # also redraws both networks
        schedule.step()
        if step % settings.target_every == 0:
            target.load_state_dict(network.state_dict())  # μ and σ; the target keeps its own noise
    return network


def play(network: nn.Module, settings: Settings, games: int) -> list[float]:
    """Play whole games with the mean weights."""
    environment: Any = gymnasium.make(settings.environment)
    returns = []
    for game in range(games):
        observation, _ = environment.reset(seed=settings.seed + 1_000 + game)
        total, ended = 0.0, False
        while not ended:
            with torch.no_grad(), noisynet.mean_weights(network):
                action = int(network(torch.from_numpy(observation)).argmax())
            observation, reward, terminated, truncated, _ = environment.step(action)
            total += float(reward)
            ended = terminated or truncated
        returns.append(total)
    return returns


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--seed", type=int, default=Settings.seed)
    arguments = parser.parse_args()
    chosen = Settings(steps=arguments.steps, seed=arguments.seed)
    trained = train(chosen)
    print("SNR:", {name: round(value, 2) for name, value in noisynet.snr(trained).items()})
    print(f"mean weights: {np.mean(play(trained, chosen, 20)):.1f} of 500")
