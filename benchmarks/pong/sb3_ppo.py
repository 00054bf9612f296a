"""Measure how long Stable-Baselines3's PPO takes to solve Pong, with its zoo's Atari settings.

    python -m benchmarks.pong.sb3_ppo --seeds 100-102 --machine "…"
    python -m benchmarks.pong.sb3_ppo --seeds 100-100 --minutes 1 --out /tmp/trial --machine "…"

Solved means the same as for our agents: the mean return of 100 training games has reached 18. A
seed that is not solved after --minutes is stopped at the next step. Each agent is then evaluated in
20 new games, with actions drawn from its policy as in training. The results are lines like those of
seeds.py, in the same folder: `sb3-ppo.jsonl`, or `sb3-ppo-64.jsonl` with --environments 64; the zoo
has 8. Seeds that are already in the file are left out. Needs OpenCV: pip install
opencv-python-headless.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from noisynet.evaluation.scores import mean_interval

from ..provenance import provenance
from ..training.sb3 import ZOO_PPO, ZOO_STEPS, pong, ppo
from .seeds import EPISODES, FOLDER, add, read, write_summary

SOLVED_RETURN, SOLVED_GAMES = 18.0, 100
ZOO_ENVIRONMENTS = 8


class Clock(BaseCallback):
    """A callback that records each game, and ends the training when solved or out of time."""

    def __init__(self, minutes: float) -> None:
        super().__init__()
        self.games: list[tuple[int, int, float]] = []
        """The step, second and return of each game."""
        self.solved = False
        self.seconds = 0.0
        self._last: deque[float] = deque(maxlen=SOLVED_GAMES)
        self._minutes = minutes

    def _on_training_start(self) -> None:
        self._began = time.perf_counter()

    def _on_step(self) -> bool:
        self.seconds = time.perf_counter() - self._began
        for information in self.locals["infos"]:
            if "episode" in information:  # a whole game, its rewards as they are
                score = float(information["episode"]["r"])
                self.games.append((self.num_timesteps, round(self.seconds), score))
                self._last.append(score)
        enough = len(self._last) == SOLVED_GAMES
        self.solved = enough and float(np.mean(self._last)) >= SOLVED_RETURN
        return not self.solved and self.seconds < 60 * self._minutes


def measure(games: VecEnv, seed: int, minutes: float) -> dict[str, Any]:
    """Train in these environments until solved or out of time; return the results."""
    model = ppo(games, seed)
    clock = Clock(minutes)
    model.learn(ZOO_STEPS, callback=clock)
    return {
        "seed": seed,
        "solved": clock.solved,
        "steps": model.num_timesteps,
        "minutes": round(clock.seconds / 60, 2),
        "games": clock.games,
        "evaluations": {"sampled": evaluate(model, games.num_envs, seed)},
        "config": {
            **ZOO_PPO,
            "environments": games.num_envs,
            "steps": ZOO_STEPS,
            "minutes": minutes,
            "threads": torch.get_num_threads(),
            "stable_baselines3": stable_baselines3.__version__,
        },
    }


def evaluate(model: Any, environments: int, seed: int, games: int = EPISODES) -> dict[str, Any]:
    """Play new games with actions drawn from the policy; return their scores."""
    new = pong(environments, 10_000 + seed)
    returns, _ = evaluate_policy(
        model, new, games, deterministic=False, return_episode_rewards=True
    )
    new.close()
    assert isinstance(returns, list)
    scores = [float(one) for one in returns]
    return {
        "mean": float(np.mean(scores)),
        "interval": mean_interval(scores),
        "returns": scores,
    }


def main() -> None:
    """Run what is missing, then summarise and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="100-102", help="first and last")
    parser.add_argument("--minutes", type=float, default=60.0, help="after which a seed is stopped")
    parser.add_argument("--environments", type=int, default=ZOO_ENVIRONMENTS)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--machine", required=True, help="in words: processor, cores")
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    several = arguments.environments != ZOO_ENVIRONMENTS
    name = f"sb3-ppo-{arguments.environments}" if several else "sb3-ppo"
    first, last = (int(one) for one in arguments.seeds.split("-"))
    for seed in range(first, last + 1):
        if any(run["seed"] == seed for run in read(name, arguments.out)):
            continue
        games = pong(arguments.environments, seed)
        line = {**provenance(arguments.machine), **measure(games, seed, arguments.minutes)}
        games.close()
        add(name, line, arguments.out)
        print(name, seed, line["solved"], line["steps"], line["minutes"], flush=True)
    write_summary(arguments.out)


if __name__ == "__main__":
    main()
