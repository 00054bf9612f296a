"""Measure how well a target is held: effective ε over trainings under a target of 0.05.

    python -m benchmarks.study.target_held --machine "…"    runs what is missing, then the table
    python -m benchmarks.study.target_held --table           only the table

Each training, from the end of its warm-up on, is cut into ten parts of equal length, and the result
has the mean effective ε of each part. It is measured by the run's own figures, which are separate
from the measurements of the target, and in Stable-Baselines3 by `NoiseCallback`. Every finished run
is one line of results/study/target_held.jsonl.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import CallbackList

from noisynet.assemble import start
from noisynet.integrations.sb3 import NoiseCallback, NoiseControl
from noisynet.runs import config, read_metrics

from ..hosts.sb3 import SETTINGS, build
from ..provenance import RESULTS
from ..tables import markdown_table
from .compare import signed
from .part import Part, Record, run_part

FILE = RESULTS / "study" / "target_held.jsonl"
WANTED = 0.05
ARM = f"target {WANTED:g}"
PARTS = 10
WITHIN = 0.2
"""The largest error, relative to the target, that counts as held."""
SB3 = "CartPole, SB3's DQN"
Measured = tuple[np.ndarray, np.ndarray]
"""Agent steps, and the effective ε measured at each."""

RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "CartPole": ("control", {"steps": 30_000, "sigma0": 0.5, "log_every": 5}),
    "MinAtar Breakout": ("minatar", {"steps": 300_000, "log_every": 50}),
    "Pong": (
        "pqn-pong",
        {"steps": 500_000, "noise_target_every": 1024, "threads": 1, "log_every": 100},
    ),
}
"""Our runs: the preset, and the fields set. They log often, as a measurement has few rows."""


def run(task: str, arm: str, seed: int) -> Record:
    """Train one run under the target."""
    began = time.perf_counter()
    steps, measured = _in_sb3(seed) if task == SB3 else _in_ours(task, seed)
    return {
        "task": task,
        "arm": arm,
        "seed": seed,
        "final": round(float(np.mean(measured)), 4),
        "area": None,
        "steps": int(steps[-1]),
        "measurements": len(measured),
        "parts": [round(value, 4) for value in means(steps, measured)],
        "wall_seconds": round(time.perf_counter() - began, 1),
    }


def means(steps: np.ndarray, measured: np.ndarray) -> list[float]:
    """Return the mean of the measurements in each of ten parts of equal length."""
    ends = np.linspace(steps[0], steps[-1], PARTS + 1)[1:-1]
    of = np.searchsorted(ends, steps, side="left")
    return [float(measured[of == number].mean()) for number in range(PARTS)]


def _in_ours(task: str, seed: int) -> Measured:
    preset, settings = RUNS[task]
    chosen = config.load(preset, {**settings, "noise_target": WANTED, "seed": seed})
    warmup = chosen.learning.warmup_steps if chosen.learning.has_replay else 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        start(chosen, path)
        found = [
            (line["step"], line["noise/effective_epsilon"])
            for line in read_metrics(path)
            if "noise/effective_epsilon" in line and line["step"] >= warmup
        ]
    return np.array([step for step, _ in found]), np.array([value for _, value in found])


class _Measuring(NoiseCallback):
    """A `NoiseCallback` that keeps its measurements."""

    def __init__(self, every: int) -> None:
        super().__init__(every=every)
        self.found: list[tuple[int, float]] = []

    def _on_rollout_end(self) -> None:
        due = self.num_timesteps - self._logged_at >= self.every
        super()._on_rollout_end()
        if due:
            name = "noise/effective_epsilon"
            self.found.append((self.num_timesteps, float(self.logger.name_to_value[name])))


def _in_sb3(seed: int) -> Measured:
    torch.set_num_threads(1)
    model = build("dqn", seed)
    measuring = _Measuring(every=64)
    control = NoiseControl(effective_epsilon=WANTED, every=64)
    model.learn(SETTINGS["dqn"]["steps"], callback=CallbackList([control, measuring]))
    found = [one for one in measuring.found if one[0] >= model.learning_starts]
    return np.array([step for step, _ in found]), np.array([value for _, value in found])


def table(records: Sequence[Record]) -> str:
    """Return a table with a row for each task that has runs."""
    heads = ("task", "seeds", "mean", "lowest and highest part", f"parts within {WITHIN:.0%}")
    rows: list[list[str]] = []
    for task in PART.arms:
        mine = [one for one in records if one["task"] == task]
        if not mine:
            continue
        parts = np.array([one["parts"] for one in mine])
        within = np.abs(parts / WANTED - 1) <= WITHIN
        rows.append([
            task,
            str(len(mine)),
            signed(float(np.mean([one["final"] for one in mine])), plus=False),
            f"{parts.min():.3f}, {parts.max():.3f}",
            f"{within.sum()} of {within.size}",
        ])  # fmt: skip
    return "\n".join(markdown_table(heads, rows)) + "\n"


PART = Part(
    file=FILE,
    arms=dict.fromkeys((*RUNS, SB3), (ARM,)),
    seeds={"CartPole": 3, "MinAtar Breakout": 1, "Pong": 1, SB3: 3},
    run=run,
    minutes={"CartPole": 0.5, "MinAtar Breakout": 7.0, "Pong": 10.0, SB3: 4.0},
    table=table,
)


if __name__ == "__main__":
    run_part(PART, __doc__)
