"""Compare noise, ε-greedy and noise at a target on MinAtar's five games, with DQN and PQN.

    python -m benchmarks.study.minatar --machine "…"    runs what is missing, then writes the table
    python -m benchmarks.study.minatar --table           only the table

Each has five paired seeds. Every finished run is one line of results/study/minatar.jsonl; runs of
DQN that the study has (runs.jsonl) are taken from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..provenance import RESULTS
from ..tables import markdown_table
from .compare import cell, mean_cell, paired
from .part import Part, Record, run_part
from .run import ARMS, Task, measure, read_runs
from .run import TASKS as STUDY

FILE = RESULTS / "study" / "minatar.jsonl"
GAMES = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
TARGET = "target 0.05"
SHARED_DRAW = "one draw"
"""Noise with one draw for a whole minibatch, and with targets from the draw that acted."""

TASKS = {
    **{
        f"MinAtar {game}": Task("minatar", f"MinAtar/{game}-v1", 300_000, games=50)
        for game in GAMES
    },
    **{name: task for name, task in STUDY.items() if name.startswith("MinAtar")},
    **{
        f"{game} by PQN": Task("pqn-minatar", f"MinAtar/{game}-v1", 1_000_000, games=50)
        for game in GAMES
    },
}
OF_DQN: dict[str, dict[str, Any]] = {
    "noise": ARMS["noise"],
    "epsilon": ARMS["epsilon"],
    TARGET: {"sigma0": 0.5, "noise_target": 0.05},
}
OF_PQN: dict[str, dict[str, Any]] = {
    "noise": {"sigma0": 0.5},
    # Its paper's share of the run.
    "epsilon": {"exploration": "epsilon", "epsilon_end": 0.05, "epsilon_share": 0.1},
    # 128 environments step together; a measurement at each step would take longer than the step.
    TARGET: {"sigma0": 0.5, "noise_target": 0.05, "noise_target_every": 1024},
    SHARED_DRAW: {"sigma0": 0.5, "learning_draw": "fresh", "target_draw": "acted"},
}


def arms_of(task: str) -> dict[str, dict[str, Any]]:
    """Return the arms of a task, by what they set."""
    return OF_PQN if task.endswith("by PQN") else OF_DQN


def run(task: str, arm: str, seed: int) -> Record | None:
    """Train and evaluate one run; return None if it was interrupted."""
    return measure(task, TASKS[task], arm, seed, arms_of(task))


def table(records: Sequence[Record]) -> str:
    """Return a table with two rows for each task that has runs: final games, and area."""
    heads = (
        "task", "figure", "ε-greedy", "noise − ε-greedy", "one draw − noise", "target − noise",
        "effective ε held",
    )  # fmt: skip
    rows: list[list[str]] = []
    for task in TASKS:
        for figure in ("final", "area"):
            mine = [one for one in records if one["task"] == task]
            epsilon = [one[figure] for one in mine if one["arm"] == "epsilon"]
            if not mine:
                continue
            noise = paired(records, task, "noise", "epsilon", figure)
            others = [paired(records, task, arm, "noise", figure) for arm in (SHARED_DRAW, TARGET)]
            rows.append([
                task,
                figure,
                mean_cell(epsilon),
                *("–" if one is None else cell(one) for one in (noise, *others)),
                _held(mine) if figure == "final" else "",
            ])  # fmt: skip
    return "\n".join(markdown_table(heads, rows)) + "\n"


def _held(runs: Sequence[Record]) -> str:
    """Return the mean effective ε after the first tenth of the runs under the target."""
    found = [one["effective_epsilon"][1:] for one in runs if one["arm"] == TARGET
             and one["effective_epsilon"]]  # fmt: skip
    return f"{np.mean(found):.3f}" if found else "–"


PART = Part(
    file=FILE,
    arms={task: tuple(arms_of(task)) for task in TASKS},
    seeds=dict.fromkeys(TASKS, 5),
    run=run,
    # For DQN, medians of the study's runs (runs.jsonl); for PQN, from 60,000 steps of Asterix.
    minutes={task: 3.0 if task.endswith("by PQN") else 6.0 for task in TASKS},
    others=read_runs,
    table=table,
)


if __name__ == "__main__":
    run_part(PART, __doc__)
