"""Run what is missing of the experiments behind the page "Does it pay?", the most telling first.

    make evidence ARGS='--machine "…"'             runs what is missing, then writes the tables
    python -m benchmarks.study.evidence --left      only what is left, and about how long it takes
    python -m benchmarks.study.evidence --table     only the tables

Each part is a module that can be run by itself. Every finished run is one line of the part's file,
so that an interrupted series continues where it stopped. Tables are written after every run.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from dataclasses import dataclass, replace

from noisynet.cli.options import positive

from ..provenance import RESULTS, provenance
from ..tables import markdown_table
from . import atari100k, components, control, exploring, faults, minatar, verdict
from .part import Part, run_all
from .run import SHARED

STATE = RESULTS / "study" / "evidence.md"


@dataclass(frozen=True)
class Series:
    """Some tasks of a part."""

    module: str
    tasks: tuple[str, ...]
    part: Part

    def restricted(self) -> Part:
        """Return the part with these tasks alone."""
        return replace(self.part, arms={task: self.part.arms[task] for task in self.tasks})


def _planned(part: Part) -> tuple[str, ...]:
    return tuple(task for task, seeds in part.seeds.items() if seeds)


_OF_DQN = tuple(task for task in minatar.TASKS if minatar.arms_of(task) is minatar.OF_DQN)
_MUJOCO = tuple(name for name, task in exploring.TASKS.items() if task.is_mujoco)
_CLASSIC = tuple(task for task in exploring.TASKS if task not in _MUJOCO)
_OF_PQN = tuple(task for task in minatar.TASKS if task not in _OF_DQN)
SERIES = {
    "faults, small tasks": Series("faults", ("CartPole", "DeepSea-8"), faults.PART),
    "Atari 100k": Series("atari100k", _planned(atari100k.PART), atari100k.PART),
    "MinAtar by DQN": Series("minatar", _OF_DQN, minatar.PART),
    "MinAtar by PQN": Series("minatar", _OF_PQN, minatar.PART),
    "faults, MinAtar Breakout": Series(
        "faults", ("MinAtar Breakout",), faults.PART
    ),
    "targets against σ0": Series("control", SHARED, control.PART),
    "IQN and Munchausen, small tasks": Series(
        "components", SHARED, components.PART
    ),
    "IQN and Munchausen, MinAtar": Series(
        "components", _OF_DQN, components.PART
    ),
    "Stable-Baselines3": Series("exploring", _CLASSIC, exploring.PART),
    "MuJoCo": Series("exploring", _MUJOCO, exploring.PART),
}  # fmt: skip


def state() -> str:
    """Return a table of the finished and missing runs, with their commits and machines."""
    rows: list[list[str]] = []
    for name, series in SERIES.items():
        part = series.restricted()
        every, missing = list(part.jobs()), part.missing()
        records = part.records()
        commits = Counter(one["commit"] for one in records)
        machines = dict.fromkeys(one["machine"] for one in records)
        rows.append([
            name,
            f"{len(every) - len(missing)} of {len(every)}",
            f"{part.minutes_left() / 60:.1f}" if missing else "–",
            ", ".join(f"{commit} ({count})" for commit, count in commits.items()) or "–",
            "; ".join(machines) or "–",
            f"`python -m benchmarks.study.{series.module}`",
        ])  # fmt: skip
    heads = ("runs", "done", "hours of one core left", "commit", "machine", "command")
    return "\n".join(markdown_table(heads, rows)) + "\n"


def write() -> None:
    """Write all tables."""
    for series in SERIES.values():
        series.part.write()
    verdict.main()
    STATE.write_text(state())


def main() -> None:
    """Run what is missing and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", nargs="+", choices=list(SERIES), default=list(SERIES))
    parser.add_argument("--jobs", type=positive, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--machine", default="not said", help="in words, what else ran included")
    parser.add_argument("--left", action="store_true", help="run nothing, and write nothing")
    parser.add_argument("--table", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    print(state())
    if arguments.left:
        return
    if not arguments.table:
        made = provenance(arguments.machine)  # before results make the tree differ from its commit
        for name in arguments.series:
            part = SERIES[name].restricted()
            print(f"{name}: {len(part.missing())} runs", flush=True)
            run_all(part.missing(), part.run, part.file, made, at_once=arguments.jobs, after=write)
    write()


if __name__ == "__main__":
    main()
