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
from .compare import cell, iqm_cell, paired
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


BASELINES = {"td3": "Gaussian", "sac": "squashed Gaussian", "ppo": "Gaussian"}
"""The host's own way to explore, with which the others are compared; else *neither*."""


def baseline_of(name: str) -> str:
    """Return the arm of a task with which its other arms are compared."""
    return BASELINES.get(TASKS[name].algorithm, "neither")


def table(records: Sequence[Record]) -> str:
    """Return a table for each task that has runs: interquartile means, and paired differences."""
    if not records:
        return "No run has been finished yet.\n"
    lines: list[str] = []
    for name, task in TASKS.items():
        baseline = baseline_of(name)
        rows: list[list[str]] = []
        for arm in PART.arms[name]:
            mine = [one for one in records if (one["task"], one["arm"]) == (name, arm)]
            if not mine:
                continue
            row = [arm]
            for figure in ("final", "area"):
                more = None if arm == baseline else paired(records, name, arm, baseline, figure)
                row += [
                    iqm_cell([one[figure] for one in mine]),
                    "–" if more is None else cell(more),
                ]
            rows.append([*row, iqm_cell([one["wall_seconds"] / 60 for one in mine])])
        if rows:
            minus = f"minus {baseline}"
            heads = ("explores by", "final", minus, "area", minus, "minutes")
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
