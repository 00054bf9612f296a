"""Measure what each fault of a noisy layer or agent costs: tasks × faults × paired seeds.

    python -m benchmarks.study.faults --machine "…"    runs what is missing, then writes the table
    python -m benchmarks.study.faults --table           only the table

The faults are those that other libraries have (docs/doctor.md); `faulty.py` puts each into our
agent, whose other choices stay. Every finished run is one line of results/study/faults.jsonl, so
that an interrupted study continues where it stopped; seed i of every arm plays the same
environments, and what a fault costs is the mean difference over seeds. On MinAtar, the agent
without a fault is that of the study (runs.jsonl).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from noisynet.agents import QLearning

from ..provenance import RESULTS
from ..tables import markdown_table
from . import faulty
from .compare import cell, paired
from .part import Part, Record, run_part
from .run import ARMS as STUDY
from .run import TASKS, measure, read_runs

FILE = RESULTS / "study" / "faults.jsonl"
RIGHT = "as the paper has it"


@dataclass(frozen=True)
class Fault:
    """A fault: where it was seen, and the agent or the settings that reproduce it."""

    seen_in: str
    agent: type[QLearning] | None = None
    settings: dict[str, Any] = field(default_factory=dict)


FAULTS = {
    "frozen noise: one draw for the whole run": Fault("revisiting_rainbow", faulty.FrozenNoise),
    "acting without noise": Fault("Tianshou, RLlib", faulty.ActsWithoutNoise),
    "loss without noise": Fault("TorchRL", faulty.LearnsWithoutNoise),
    "one draw for all environments": Fault(
        "BTR, TorchRL", settings={"draw_per_environment": False}
    ),
    "ε″ = ε": Fault("Kaixhin, Tianshou, CleanRL, AgileRL", settings={"choice_draw": False}),
    "ε copied into the target": Fault("Kaixhin, CleanRL, Tianshou", faulty.TargetCopiesDraw),
    "one layer as others have it": Fault("the three above at once", faulty.OneLayerAsOthersHaveIt),
    "bias σ over √q": Fault("Kaixhin, TorchRL, PFRL, CleanRL, AgileRL, DI-engine",
                            faulty.BiasOverOutputs),
    "factorised σ, independent draws": Fault(
        "CleanRL", faulty.FactorisedSigma, {"noise_kind": "independent"}
    ),
}  # fmt: skip
ARMS = {
    RIGHT: {"sigma0": 0.5},
    **{name: {"sigma0": 0.5, **fault.settings} for name, fault in FAULTS.items()},
}
SEEDS = {"CartPole": 10, "DeepSea-8": 10, "MinAtar Breakout": 5}


def run(task: str, arm: str, seed: int) -> Record | None:
    """Train and evaluate one run; return None if it was interrupted."""
    kind = None if arm == RIGHT else FAULTS[arm].agent
    with faulty.agents_of(kind):
        return measure(task, TASKS[task], arm, seed, ARMS)


def table(records: Sequence[Record]) -> str:
    """Return tables with a row for each fault: what it costs in area, and in final games."""
    if not records:
        return "No run has been finished yet.\n"
    parts: list[str] = []
    for figure, title in (
        ("area", "Area: the mean return of training games"),
        ("final", "Final: games with the mean weights after training"),
    ):
        rows: list[list[str]] = []
        for arm in ARMS:
            row = ["–" if arm == RIGHT else FAULTS[arm].seen_in]
            for task in SEEDS:
                found = paired(records, task, arm, RIGHT, figure)
                if found is None:
                    row.append("–")
                elif arm == RIGHT:
                    row.append(f"{found.ours:.3g} (n = {found.seeds})")
                else:
                    row.append(cell(found))
            rows.append([arm, *row])
        parts += [f"### {title}", "", *markdown_table(("arm", "seen in", *SEEDS), rows), ""]
    return "\n".join(parts)


def runs_of_study() -> list[Record]:
    """Return the study's runs on MinAtar that have the settings of the agent without a fault."""
    (arm,) = (name for name, settings in STUDY.items() if settings == ARMS[RIGHT])
    return [{**one, "arm": RIGHT} for one in read_runs()
            if one["task"] == "MinAtar Breakout" and one["arm"] == arm]  # fmt: skip


PART = Part(
    file=FILE,
    arms=dict.fromkeys(SEEDS, tuple(ARMS)),
    seeds=SEEDS,
    run=run,
    # Medians of the study's runs by noise (runs.jsonl).
    minutes={"CartPole": 0.43, "DeepSea-8": 0.25, "MinAtar Breakout": 6.6},
    others=runs_of_study,
    table=table,
)


if __name__ == "__main__":
    run_part(PART, __doc__)
