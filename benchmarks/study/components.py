"""Measure what BTR's parts add to DQN with noise, and what noise adds to the parts.

    python -m benchmarks.study.components --machine "…"    runs what is missing, then the table
    python -m benchmarks.study.components --table           only the table

The parts are implicit quantiles (IQN) and Munchausen targets, on the five tasks that all arms of
the study play (ten paired seeds) and on MinAtar's games (five). Every finished run is one line of
results/study/components.jsonl; DQN's own runs are those of the study and of minatar.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..provenance import RESULTS
from ..tables import markdown_table
from . import minatar
from .compare import cell, mean_cell, paired
from .part import Part, Record, run_part
from .run import ARMS as STUDY
from .run import SHARED, Task, measure, read_runs
from .run import TASKS as OF_STUDY

FILE = RESULTS / "study" / "components.jsonl"
TASKS: dict[str, Task] = {
    **{name: OF_STUDY[name] for name in SHARED},
    **{name: task for name, task in minatar.TASKS.items() if not name.endswith("by PQN")},
}
QUANTILES = {"quantiles": 8, "target_quantiles": 8, "acting_quantiles": 8}  # BTR's
MUNCHAUSEN = {"munchausen": 0.9, "entropy_temperature": 0.03}  # its paper's
BOTH, BOTH_BY_EPSILON = "both", "both by ε"
ARMS: dict[str, dict[str, Any]] = {
    "IQN": {**STUDY["noise"], **QUANTILES},
    "Munchausen": {**STUDY["noise"], **MUNCHAUSEN},
    BOTH: {**STUDY["noise"], **QUANTILES, **MUNCHAUSEN},
    BOTH_BY_EPSILON: {**STUDY["epsilon"], **QUANTILES, **MUNCHAUSEN},
}


def run(task: str, arm: str, seed: int) -> Record | None:
    """Train and evaluate one run; return None if it was interrupted."""
    return measure(task, TASKS[task], arm, seed, ARMS)


def table(records: Sequence[Record]) -> str:
    """Return a table with two rows for each task: final games, and area.

    A task without two seeds of an arm has no interval to show, and is left out.
    """
    if not records:
        return "No run has been finished yet.\n"
    every = [*records, *read_runs(), *minatar.PART.records()]
    heads = (
        "task", "figure", "DQN, noise", *(f"{arm} − DQN" for arm in list(ARMS)[:3]),
        "both: noise − ε",
    )  # fmt: skip
    rows: list[list[str]] = []
    for task in TASKS:
        for figure in ("final", "area"):
            noise = {one["seed"]: one[figure] for one in every
                     if (one["task"], one["arm"]) == (task, "noise")}  # fmt: skip
            pairs = [*((arm, "noise") for arm in list(ARMS)[:3]), (BOTH, BOTH_BY_EPSILON)]
            found = [paired(every, task, *pair, figure) for pair in pairs]
            if all(one is None or one.seeds < 2 for one in found):
                continue
            cells = ["–" if one is None else cell(one) for one in found]
            rows.append([task, figure, mean_cell(list(noise.values())), *cells])
    return "\n".join(markdown_table(heads, rows)) + "\n"


PART = Part(
    file=FILE,
    arms=dict.fromkeys(TASKS, tuple(ARMS)),
    seeds={task: 10 if task in SHARED else 5 for task in TASKS},
    run=run,
    # Half as much again as the medians of the study's runs by noise (runs.jsonl).
    minutes={"CartPole": 0.65, "Acrobot": 0.9, "Chain-10": 0.4, "DeepSea-8": 0.4,
             "DeepSea-10": 0.45}
    | {task: 9.0 for task in TASKS if task not in SHARED},
    table=table,
)  # fmt: skip


if __name__ == "__main__":
    run_part(PART, __doc__)
