"""Compare noise that is held at a target with the best of six σ0: tasks × arms × paired seeds.

    python -m benchmarks.study.control --machine "…"    runs what is missing, then writes the table
    python -m benchmarks.study.control --table           only the table

The tasks are the study's five that all arms play, and each σ0 is an arm of the study (runs.jsonl).
Each finished run under the target is one line of results/study/control.jsonl, so that an
interrupted study continues where it stopped; seed i of every arm plays the same environments. The
best σ0 of a task is chosen from the same runs with which it is compared, which favours it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from noisynet.evaluation.scores import mean_interval

from ..provenance import RESULTS
from ..tables import markdown_table
from .part import Part, Record, run_part
from .run import ARMS as STUDY
from .run import SHARED, read_runs, run

FILE = RESULTS / "study" / "control.jsonl"
TARGET = "target 0.05"
SIGMAS = {
    arm: f"{settings['sigma0']:g}"
    for arm, settings in STUDY.items()
    if list(settings) == ["sigma0"]
}
"""The study's arms that differ in σ0 alone, and their σ0."""
ARMS: dict[str, dict[str, Any]] = {
    TARGET: {"noise_target": 0.05, "sigma0": 0.5},
    **{arm: STUDY[arm] for arm in SIGMAS},
}


def runs_of_study() -> list[Record]:
    """Return the study's runs of these tasks that differ in σ0 alone."""
    return [one for one in read_runs() if one["task"] in SHARED and one["arm"] in SIGMAS]


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
    means = {arm: float(np.mean([of[seed] for seed in common])) for arm, of in areas.items()}
    best = max(SIGMAS, key=means.__getitem__)
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
        "best": SIGMAS[best],
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
        shown = "one seed: no interval"
        if interval is not None:
            shown = f"{found['difference']:+.2f} ({interval[0]:.2f} to {interval[1]:.2f})"
        rows.append([
            task,
            str(found["seeds"]),
            f"{found['target']:.2f}",
            f"{found['best']}: {found['area of the best']:.2f}",
            shown,
            "–" if found["held"] is None else f"{found['held']:.3f}",
        ])  # fmt: skip
    return "\n".join(markdown_table(heads, rows)) + "\n"


PART = Part(
    file=FILE,
    arms=dict.fromkeys(SHARED, tuple(ARMS)),
    seeds=dict.fromkeys(SHARED, 10),
    run=partial(run, arms=ARMS),
    # Medians of the study's runs by noise (runs.jsonl).
    minutes={"CartPole": 0.43, "Acrobot": 0.62, "Chain-10": 0.27, "DeepSea-8": 0.25,
             "DeepSea-10": 0.3},
    others=runs_of_study,
    table=table,
)  # fmt: skip


if __name__ == "__main__":
    run_part(PART, __doc__)
