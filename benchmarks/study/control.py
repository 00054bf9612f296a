"""Compare noise that is held at a target with the best of five σ0: tasks × arms × paired seeds.

    python -m benchmarks.study.control --machine "…"    runs what is missing, then writes the table
    python -m benchmarks.study.control --table           only the table

The tasks are the study's five that all arms play. Every finished run is one line of
results/study/control.jsonl, so that an interrupted study continues where it stopped; seed i of
every arm plays the same environments. The best σ0 of a task is chosen by the very runs that it is
compared by, which favours it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from noisynet.evaluation.scores import mean_interval

from ..provenance import RESULTS, provenance
from ..tables import markdown_table
from .part import run_all
from .run import TASKS, read_runs, run

FILE = RESULTS / "study" / "control.jsonl"
TARGET = "target 0.05"
ARMS: dict[str, dict[str, Any]] = {
    TARGET: {"noise_target": 0.05, "sigma0": 0.5},
    **{f"σ0 {value:g}": {"sigma0": value} for value in (0.1, 0.25, 0.5, 0.75, 1.0)},
}
SHARED = [name for name, task in TASKS.items() if task.arms is None]

Record = dict[str, Any]


def missing(
    records: Sequence[Record], tasks: Sequence[str], seeds: int
) -> Iterator[tuple[str, str, int]]:
    """Yield what has not been run, seed by seed, so that a part of the study is a fair one."""
    done = {(one["task"], one["arm"], one["seed"]) for one in records}
    for seed in range(seeds):
        for name in tasks:
            for arm in ARMS:
                if (name, arm, seed) not in done:
                    yield name, arm, seed


def compared(records: Sequence[Record], task: str) -> Record | None:
    """Compare areas under the curve on a task, seed by seed; None where an arm has no runs."""
    areas = {
        arm: {one["seed"]: one["area"] for one in records
              if (one["task"], one["arm"]) == (task, arm)}
        for arm in ARMS
    }  # fmt: skip
    common = sorted(set.intersection(*(set(of_arm) for of_arm in areas.values())))
    if not common:
        return None
    means = {arm: float(np.mean([areas[arm][seed] for seed in common])) for arm in ARMS}
    best = max((arm for arm in ARMS if arm != TARGET), key=means.__getitem__)
    differences = [areas[TARGET][seed] - areas[best][seed] for seed in common]
    held = [
        one["effective_epsilon"][1:]
        for one in records
        if (one["task"], one["arm"]) == (task, TARGET) and one["effective_epsilon"]
    ]
    return {
        "task": task,
        "seeds": len(common),
        "target": means[TARGET],
        "best": best,
        "area of the best": means[best],
        "difference": float(np.mean(differences)),
        "interval": mean_interval(differences),
        "held": float(np.mean(held)) if held else None,
    }


def table(records: Sequence[Record]) -> str:
    """Return a table with a row for each task that all arms have played."""
    heads = (
        "task", "seeds", "area, target 0.05", "best σ0, its area", "difference, 95 %",
        "effective ε held",
    )  # fmt: skip
    rows: list[list[str]] = []
    for task in SHARED:
        found = compared(records, task)
        if found is None:
            continue
        interval = found["interval"]
        ends = "" if interval is None else f" ({interval[0]:.2f} to {interval[1]:.2f})"
        rows.append([
            task,
            str(found["seeds"]),
            f"{found['target']:.2f}",
            f"{found['best'].removeprefix('σ0 ')}: {found['area of the best']:.2f}",
            f"{found['difference']:+.2f}{ends}",
            "–" if found["held"] is None else f"{found['held']:.3f}",
        ])  # fmt: skip
    return "\n".join(markdown_table(heads, rows)) + "\n"


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--tasks", nargs="+", choices=SHARED, default=SHARED)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--machine", default="not said")
    parser.add_argument("--table", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    if not arguments.table:
        made = provenance(arguments.machine)
        jobs = list(missing(read_runs(FILE), arguments.tasks, arguments.seeds))
        run_all(jobs, partial(run, arms=ARMS), FILE, made, at_once=arguments.jobs)
    FILE.with_suffix(".md").write_text(table(read_runs(FILE)))


if __name__ == "__main__":
    main()
