"""Show how alike the points of a Pong agent are: the steps from one point to the next.

    python benchmarks/pong_rallies.py runs/pong-… --steps 2000 --out FILE

plays games side by side under the learned noise and writes a line for each: the steps that every
point took, + for one that was won and - for one that was lost, | between games.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from noisynet.agents import make_environments
from noisynet.evaluation.agent import TrainedAgent

SEED = 77


def points(path: Path, steps: int) -> tuple[int, list[str]]:
    """Play and give the checkpoint's step and a line for each environment."""
    agent = TrainedAgent.load(path)
    environments = make_environments(agent.config, count=8, seed=SEED)
    seen: list[list[str]] = [[] for _ in range(8)]
    since = np.zeros(8, int)
    try:
        observation = environments.reset()
        for step in range(steps):
            noise = agent.config.exploration.has_noise
            result = environments.step(agent.act(observation, noise=noise))
            observation = result.observation
            for place in np.flatnonzero(result.reward):
                sign = "+" if result.reward[place] > 0 else "-"
                seen[place].append(f"{step - since[place]}{sign}")
                since[place] = step
            for place in np.flatnonzero(result.first):
                seen[place].append("|")
                since[place] = step
    finally:
        environments.close()
    return agent.step, [" ".join(line) for line in seen]


def main() -> None:
    """Play, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    at, lines = points(arguments.run, arguments.steps)
    text = f"step {at} of the training, {arguments.steps} steps of 8 games\n" + "\n".join(lines)
    arguments.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
