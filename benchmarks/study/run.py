"""Compare noise with ε-greedy, and variants of the noise: tasks × arms × paired seeds.

    python -m benchmarks.study.run --machine "…"    runs what is missing, then writes the table
    python -m benchmarks.study.run --table           only the table and plots

Every finished run is one line of results/study/runs.jsonl, so that an interrupted study continues
where it stopped. Seeds are paired: seed i of every arm plays the same environments.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from noisynet.assemble import start
from noisynet.evaluation.agent import evaluate_run
from noisynet.runs import config, read_metrics

from ..provenance import RESULTS
from .part import Part, Record, read_lines, run_part
from .report import markdown, plot, plot_arms, summary

RUNS = RESULTS / "study" / "runs.jsonl"
POINTS = 100


@dataclass(frozen=True)
class Task:
    """A preset, its environment and how long it is trained and played."""

    preset: str
    environment: str
    steps: int
    games: int = 20
    arms: tuple[str, ...] | None = None
    seeds: int = 10


RIVALS = ("noise", "epsilon")
SETTINGS = (*RIVALS, "noise σ0 0.1", "noise σ0 0.4", "epsilon over 10 %", "epsilon over 50 %")
"""The arms that run on every small task; the others run where a task names no arms."""

TASKS = {
    "CartPole": Task("control", "CartPole-v1", 30_000),
    "Acrobot": Task("control", "Acrobot-v1", 40_000),
    "Chain-10": Task("chain", "Chain-10", 20_000, games=1),
    "Chain-20": Task("chain", "Chain-20", 20_000, games=1, arms=SETTINGS),
    "DeepSea-6": Task("deep-sea", "DeepSea-6", 20_000, games=1, arms=SETTINGS),
    "DeepSea-8": Task("deep-sea", "DeepSea-8", 20_000, games=1),
    "DeepSea-10": Task("deep-sea", "DeepSea-10", 20_000, games=1),
    "DeepSea-12": Task("deep-sea", "DeepSea-12", 20_000, games=1, arms=SETTINGS),
    "DeepSea-14": Task("deep-sea", "DeepSea-14", 20_000, games=1, arms=SETTINGS),
    "MinAtar Breakout": Task("minatar", "MinAtar/Breakout-v1", 300_000, 50, RIVALS, seeds=5),
    "MinAtar Freeway": Task("minatar", "MinAtar/Freeway-v1", 300_000, 20, RIVALS, seeds=5),
}

SHARED = tuple(name for name, task in TASKS.items() if task.arms is None)
"""The tasks that all arms play."""

_EPSILON = {"exploration": "epsilon", "epsilon_start": 1.0, "epsilon_end": 0.02}
ARMS: dict[str, dict[str, Any]] = {
    "noise": {"sigma0": 0.5},
    "epsilon": {**_EPSILON, "epsilon_share": 0.25},
    # Which is less sensitive: σ0, or the schedule of ε?
    "noise σ0 0.1": {"sigma0": 0.1},
    "noise σ0 0.25": {"sigma0": 0.25},
    "noise σ0 0.4": {"sigma0": 0.4},
    "noise σ0 0.75": {"sigma0": 0.75},
    "noise σ0 1": {"sigma0": 1.0},
    "epsilon over 10 %": {**_EPSILON, "epsilon_share": 0.1},
    "epsilon over 50 %": {**_EPSILON, "epsilon_share": 0.5},
    # What the papers leave open.
    "independent": {"noise_kind": "independent"},
    "last layers": {"sigma0": 0.5, "noise_in": "last"},
    "all layers": {"sigma0": 0.5, "noise_in": "all"},
    "one draw for all": {"sigma0": 0.5, "draw_per_environment": False},
    "no third draw": {"sigma0": 0.5, "choice_draw": False},
    "noise and ε 0.02": {"sigma0": 0.5, "exploration": "both", "epsilon_start": 0.02,
                         "epsilon_end": 0.02, "epsilon_share": 0.1},
}  # fmt: skip


def settings_of(
    task: Task, arm: str, seed: int, arms: Mapping[str, Mapping[str, Any]] = ARMS
) -> tuple[str, dict[str, Any]]:
    """Return the preset of one run, and its overrides by the names of the config's fields."""
    chosen = {
        "environment": task.environment,
        "steps": task.steps,
        "seed": seed,
        "device": "cpu",
        "precision": "float32",
        "threads": 1,
        "checkpoint_every": task.steps,
        **arms[arm],
    }
    if chosen.get("noise_kind") == "independent":
        chosen["sigma0"] = None  # the paper's for this kind, 0.017
    share = chosen.pop("epsilon_share", None)
    if share is not None:
        chosen["epsilon_steps"] = int(share * task.steps)
    return task.preset, chosen


def run(
    name: str, arm: str, seed: int, arms: Mapping[str, Mapping[str, Any]] = ARMS
) -> Record | None:
    """Train and evaluate one run in a temporary folder; return None if it was interrupted."""
    return measure(name, TASKS[name], arm, seed, arms)


def measure(
    name: str, task: Task, arm: str, seed: int, arms: Mapping[str, Mapping[str, Any]]
) -> Record | None:
    """Train and evaluate one run of a task by an arm, as `run` does."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        outcome = start(config.load(*settings_of(task, arm, seed, arms)), path)
        if outcome.reason == "interrupted":
            return None
        played = evaluate_run(path, episodes=task.games)
        # An agent that only waits ends no game; what it returns then is what it returned before.
        games = training_games(path) or [(task.steps, played["mean"])]
        curve = curve_of(games, task.steps)
        explored = effective_epsilon_of(path)
    return {
        "task": name,
        "arm": arm,
        "seed": seed,
        "final": played["mean"],
        "area": float(np.mean(curve)),
        "curve": [round(value, 3) for value in curve],
        "effective_epsilon": explored,
        "steps": task.steps,
        "wall_seconds": round(time.perf_counter() - began, 1),
    }


def training_games(path: Path) -> list[tuple[int, float]]:
    """Return the step at which each game of a run ended, and its return."""
    return [
        (record["step"], record["game/return"])
        for record in read_metrics(path)
        if "game/return" in record
    ]


def curve_of(games: Sequence[tuple[int, float]], steps: int) -> list[float]:
    """Return the mean return of the last 10 training games at evenly spaced steps.

    Raises ValueError if no game ended.
    """
    if not games:
        raise ValueError(f"no training game ended within {steps:,} steps")
    at, returns = np.array(games).T
    curve: list[float] = []
    for point in np.linspace(steps / POINTS, steps, POINTS):
        until = int(np.searchsorted(at, point, side="right"))
        recent = returns[max(until - 10, 0) : until]
        # Before the first game has ended, the curve has the return of that game.
        curve.append(float(recent.mean() if len(recent) else returns[0]))
    return curve


def effective_epsilon_of(path: Path) -> list[float] | None:
    """Return the mean effective ε of each tenth of a training; None where none was measured."""
    found = [
        record["noise/effective_epsilon"]
        for record in read_metrics(path)
        if "noise/effective_epsilon" in record
    ]
    if len(found) < 10:
        return None
    return [round(float(part.mean()), 4) for part in np.array_split(np.array(found), 10)]


def read_runs() -> list[Record]:
    """Read the finished runs."""
    return read_lines(RUNS)


def table(records: Sequence[Record]) -> str:
    """Return a table for each task, and one for the tasks that all arms play."""
    return markdown(summary(records, list(TASKS), list(ARMS), SHARED), list(TASKS))


def draw(records: Sequence[Record], folder: Path) -> None:
    """Draw the learning curves, and the interquartile means of all arms."""
    plot(records, dict.fromkeys(TASKS, RIVALS), folder / "curves.png")
    plot_arms(summary(records, list(TASKS), list(ARMS), SHARED), folder / "intervals.png")


PART = Part(
    file=RUNS,
    arms={name: task.arms or tuple(ARMS) for name, task in TASKS.items()},
    seeds={name: task.seeds for name, task in TASKS.items()},
    run=run,
    minutes={name: 6.0 if name.startswith("MinAtar") else 0.3 for name in TASKS}
    | {"CartPole": 0.43, "Acrobot": 0.62},
    table=table,
    draw=draw,
)


if __name__ == "__main__":
    run_part(PART, __doc__)
