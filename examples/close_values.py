"""Show where a noisy agent explores: often where Q-values are close, rarely where they are not.

    python examples/close_values.py [RUN] [--steps 20000] [--out close_values.png]

RUN is a finished run with noise; without one, a small CartPole run is trained first. For every
observation of some games, the script computes the gap of Q (the best action's value minus the
second best's, with the mean weights) and the effective ε: how often noise chooses another action
than the mean weights do. For comparison, it measures ε-greedy with the ε that explores as much
overall. It needs matplotlib.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch

import noisynet
from noisynet.agents.exploration import epsilon_greedy
from noisynet.assemble import build_agent, make_environments, start
from noisynet.runs import checkpoint, config
from noisynet.runs.folder import RunFolder

mpl.use("Agg")
from matplotlib import pyplot as plt

BINS = 8
DRAWS = 64
# From Okabe and Ito's palette, which colour-blind readers can tell apart; markers differ, too.
NOISE, GREEDY = "#0072B2", "#D55E00"


def trained(folder: Path, steps: int) -> Path:
    """Train CartPole by noise alone into a folder, and return the folder."""
    settings = {"steps": steps, "warmup_steps": min(1000, steps // 4), "seed": 1}
    start(config.load("cartpole", settings), folder)
    return folder


def situations(folder: Path, steps: int) -> tuple[torch.nn.Module, torch.Tensor, int]:
    """Play with the exploring agent; return its network, the observations and the action count."""
    run = RunFolder.open(folder)
    settings = config.from_yaml(run.config_text, str(run.config_file))
    found = checkpoint.read_newest(run.checkpoints)
    if found is None or not settings.exploration.has_noise or settings.actor_critic.lstm_size:
        raise SystemExit(f"RUN: got {folder}, expected one with noise, a checkpoint and no LSTM")
    if settings.learning.is_actor_critic:
        raise SystemExit(f"RUN: got {folder} of an actor-critic, expected one that learns Q")
    settings = settings.replaced(device="cpu")
    environments = make_environments(settings, seed=settings.training.seed + 7)
    agent = build_agent(settings, environments.observation_shape, environments.action_count)
    agent.load_acting(found.arrays)
    network = agent.network
    seen = []
    observation = environments.reset()
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        seen.append(observation)
        # A new draw at every step reaches more states than a single policy would.
        noisynet.resample(network, generator=generator)
        observation = environments.step(agent.greedy(observation)).observation
    environments.close()
    return network, torch.from_numpy(np.concatenate(seen)), environments.action_count


def by_gap(gap: np.ndarray, *shares: np.ndarray) -> list[tuple[float, ...]]:
    """Sort observations by their gap into bins of equal size; return the means of each bin."""
    parts = np.array_split(np.argsort(gap), BINS)
    return [(float(gap[p].mean()), *(float(one[p].mean()) for one in shares)) for p in parts]


def picture(rows: list[tuple[float, ...]], epsilon: float, out: Path) -> None:
    """Draw effective ε against the gap, for the noise and for ε-greedy."""
    gaps, noise, greedy = zip(*rows, strict=True)
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    axes.plot(gaps, noise, "o-", color=NOISE, label="learned noise")
    axes.plot(gaps, greedy, "s--", color=GREEDY, label=f"ε-greedy, ε = {epsilon:.3f}")
    axes.set_xlabel("gap between the best two actions, in units of Q (discounted reward)")
    axes.set_ylabel("effective ε: share of actions\nother than the mean weights' one")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="Show where a noisy agent explores")
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN", help="a run with noise")
    parser.add_argument("--steps", type=int, default=20_000, help="agent steps of training")
    parser.add_argument("--out", type=Path, default=Path("close_values.png"), help="the picture")
    given = parser.parse_args()
    folder = given.run or trained(Path("runs/close-values"), given.steps)
    network, seen, actions = situations(folder, 200)
    generator = torch.Generator().manual_seed(1)
    found = noisynet.behaviour(network, seen, draws=DRAWS, generator=generator)
    gap = found.rows["q_gap"].numpy()
    noise = found.rows["effective_epsilon"].numpy()

    # A uniformly random action is the greedy one once in `actions` times.
    epsilon = min(found.effective_epsilon * actions / (actions - 1), 1.0)
    with torch.no_grad(), noisynet.mean_weights(network):
        best = network(seen).argmax(-1).numpy()
    chance = np.random.default_rng(2)
    tried = [epsilon_greedy(best, actions, epsilon, chance) != best for _ in range(DRAWS)]
    rows = by_gap(gap, noise, np.mean(tried, axis=0))

    print(
        f"{len(seen):,} situations, {DRAWS} draws each; effective ε {found.effective_epsilon:.3f}"
    )
    print("gap of Q   noise   ε-greedy")
    for row in rows:
        print("{:8.4f}   {:5.3f}   {:5.3f}".format(*row))
    picture(rows, epsilon, given.out)
    close, far = rows[0][1], rows[-1][1]
    print(f"Noise explores in {close:.1%} of draws where the gap is smallest,")
    print(f"and in {far:.1%} where it is widest.")
    print(f"The picture is {given.out}")


if __name__ == "__main__":
    main()
