"""Compare ways to explore in Stable-Baselines3: continuous actions, memory, on-policy agents.

    python -m benchmarks.study.exploring --machine "…"    runs what is missing, then the table
    python -m benchmarks.study.exploring --table           only the table and the picture

The ways are the host's Gaussian and OU noise, gSDE and entropy bonus, learned noise, and adaptive
parameter noise; ../hosts/exploring.py has their settings. Each has five paired seeds. Every
finished run is one line of results/study/exploring.jsonl.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy

from ..hosts.exploring import ARMS, TASKS, build, environments_of
from ..provenance import RESULTS
from ..tables import markdown_table
from .compare import iqm_cell
from .part import Part, Record, run_part
from .report import plot
from .run import curve_of

FILE = RESULTS / "study" / "exploring.jsonl"
GAMES = 20


class TrainingGames(BaseCallback):
    """A callback that records the step at which each training game ended, and its return."""

    def __init__(self) -> None:
        super().__init__()
        self.games: list[tuple[int, float]] = []

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.games.append((self.num_timesteps, float(info["episode"]["r"])))
        return True


def run(name: str, arm: str, seed: int) -> Record:
    """Train one agent, and evaluate it by the mean weights in environments that it has not seen."""
    began = time.perf_counter()
    task = TASKS[name]
    model, callbacks = build(task, ARMS[task.algorithm][arm], seed)
    training = TrainingGames()
    model.learn(task.steps, callback=[training, *callbacks])
    unseen = environments_of(task, 10_000 + seed, 10)
    played, _ = evaluate_policy(
        model, unseen, GAMES, deterministic=True, return_episode_rewards=True
    )
    curve = curve_of(training.games, task.steps)[1::2]
    return {
        "task": name,
        "arm": arm,
        "seed": seed,
        "final": round(float(np.mean(played)), 2),
        "area": round(float(np.mean(curve)), 2),
        "curve": [round(value, 2) for value in curve],
        "steps": task.steps,
        "wall_seconds": round(time.perf_counter() - began, 1),
    }


def table(records: Sequence[Record]) -> str:
    """Return a table for each task that has runs: interquartile means and their intervals."""
    if not records:
        return "No run has been finished yet.\n"
    lines: list[str] = []
    for name, task in TASKS.items():
        rows: list[list[str]] = []
        for arm in PART.arms[name]:
            mine = [one for one in records if (one["task"], one["arm"]) == (name, arm)]
            if mine:
                figures = [[one[key] for one in mine] for key in ("final", "area")]
                minutes = [one["wall_seconds"] / 60 for one in mine]
                rows.append([arm, *map(iqm_cell, (*figures, minutes))])
        if rows:
            heads = ("explores by", "games by the mean weights", "training games", "minutes")
            title = f"### {name}: {task.environment}, {task.steps:,} steps"
            lines += [title, "", *markdown_table(heads, rows), ""]
    return "\n".join(lines)


def draw(records: Sequence[Record], folder: Path) -> None:
    """Draw the returns of training games."""
    plot(records, PART.arms, folder / "exploring.png")


ON_MUJOCO = {
    "td3": ("Gaussian", "OU", "learned", "adaptive"),
    "sac": ("squashed Gaussian", "gSDE", "learned", "adaptive"),
}
"""The arms that the MuJoCo tasks have, whose runs take longest."""


def arms_of(name: str) -> tuple[str, ...]:
    """Return the arms that play a task."""
    task = TASKS[name]
    return ON_MUJOCO[task.algorithm] if task.is_mujoco else tuple(ARMS[task.algorithm])


PART = Part(
    file=FILE,
    arms={name: arms_of(name) for name in TASKS},
    seeds=dict.fromkeys(TASKS, 5),
    run=run,
    # From a twentieth of each.
    minutes={
        "Pendulum, TD3": 2.4,
        "Pendulum, SAC": 3.0,
        "Pendulum, PPO": 2.0,
        "MountainCar, TD3": 6.0,
        "MountainCar, SAC": 7.5,
        "HalfCheetah, TD3": 12.0,
        "HalfCheetah, SAC": 15.0,
        "Hopper, TD3": 12.0,
        "Hopper, SAC": 15.0,
        "CartPole without velocities, RecurrentPPO": 3.0,
        "CartPole, PPO": 0.5,
        "CartPole, A2C": 0.4,
        "Acrobot, PPO": 1.0,
        "Acrobot, A2C": 0.5,
    },
    table=table,
    draw=draw,
)


if __name__ == "__main__":
    run_part(PART, __doc__)
