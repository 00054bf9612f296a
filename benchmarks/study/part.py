"""A part of the evidence: runs by task, arm and seed, each a line of a file when finished."""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from noisynet.cli.options import positive

from ..processes import end_with_parent
from ..provenance import provenance

Record = dict[str, Any]
Job = tuple[str, str, int]
"""Task, arm, seed."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Runs of one kind: which there are, the file that has them, and how one is made."""

    file: Path
    arms: Mapping[str, Sequence[str]]
    """The arms of each task, in the order in which they run."""
    seeds: Mapping[str, int]
    """The number of seeds of each task; 0 for a task that runs only if it is asked for."""
    run: Callable[[str, str, int], Record | None]
    """Train and evaluate one run, in another process; None if it was interrupted."""
    minutes: Mapping[str, float]
    """The minutes of a run of each task on one core, used until some runs have been timed."""
    table: Callable[[Sequence[Record]], str]
    """Return the text of the table of these runs, which stands beside their file."""
    draw: Callable[[Sequence[Record], Path], None] | None = None
    """Draw pictures of these runs into a folder."""
    others: Callable[[], list[Record]] = list
    """Return runs of these tasks that are in other files."""

    def records(self) -> list[Record]:
        """Return the finished runs."""
        every = [*self.others(), *read_lines(self.file)]
        return [one for one in every if one["arm"] in self.arms.get(one["task"], ())]

    def jobs(self) -> Iterator[Job]:
        """Yield all runs, seed by seed, so that all arms progress together."""
        for seed in range(max(self.seeds.values())):
            for task, arms in self.arms.items():
                for arm in arms:
                    if seed < self.seeds[task]:
                        yield task, arm, seed

    def missing(self) -> list[Job]:
        """List the runs that are not finished yet."""
        done = {(one["task"], one["arm"], one["seed"]) for one in self.records()}
        return [job for job in self.jobs() if job not in done]

    def write(self) -> None:
        """Write the table, and draw the pictures."""
        records = self.records()
        self.file.with_suffix(".md").write_text(self.table(records))
        if self.draw is not None:
            self.draw(records, self.file.parent)

    def minutes_left(self) -> float:
        """Estimate the minutes of one core that the missing runs take.

        The time of a run is the median over the finished runs of its task and arm, or over those of
        its task; without any, it is that in `minutes`.
        """
        taken: dict[tuple[str, str | None], list[float]] = {}
        for one in self.records():
            for key in ((one["task"], one["arm"]), (one["task"], None)):
                taken.setdefault(key, []).append(one["wall_seconds"] / 60)
        known = {key: statistics.median(of) for key, of in taken.items()}
        return sum(
            known.get((task, arm), known.get((task, None), self.minutes[task]))
            for task, arm, _ in self.missing()
        )


def read_lines(file: Path) -> list[Record]:
    """Read the finished runs; a line that a kill cut short is left out."""
    if not file.exists():
        return []
    records: list[Record] = []
    for line in file.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def run_all(
    jobs: Sequence[Job],
    run: Callable[[str, str, int], Record | None],
    file: Path,
    made: Record,
    *,
    at_once: int,
    after: Callable[[], object] = lambda: None,
) -> None:
    """Run jobs in a pool of processes, and add each to the file as soon as it is done.

    `made` has what is the same for all: commit, date and machine. `after` is called whenever a run
    has been added. Raises SystemExit at the end if some jobs failed.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    text = file.read_text() if file.exists() else ""
    if text and not text.endswith("\n"):  # a kill cut the last line short
        file.write_text(text + "\n")
    failed: list[str] = []
    pool = ProcessPoolExecutor(at_once, initializer=end_with_parent)
    try:
        futures = {pool.submit(run, *job): job for job in jobs}
        for number, future in enumerate(as_completed(futures), 1):
            try:
                result = future.result()
            except BrokenExecutor:
                raise
            except Exception as error:  # noqa: BLE001 - the others go on
                failed.append(f"{futures[future]}: {error}")
                print(f"{number}/{len(jobs)} failed: {failed[-1]}", flush=True)
                continue
            if result is None:
                continue
            record = {**result, **made}
            with file.open("a") as lines:
                lines.write(json.dumps(record, ensure_ascii=False) + "\n")
            shown = {key: record[key] for key in ("task", "arm", "seed", "final", "area")}
            print(f"{number}/{len(jobs)}", json.dumps(shown, ensure_ascii=False), flush=True)
            after()
    finally:
        pool.shutdown(cancel_futures=True)
    if failed:
        raise SystemExit(
            "\n".join(["These runs failed; the same command tries them again:", *failed])
        )


def run_part(part: Part, description: str | None) -> None:
    """Read a part's command line, run the missing runs that it asks for, and write the table."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=list(part.arms), help="default: all planned")
    every_arm = sorted({arm for arms in part.arms.values() for arm in arms})
    parser.add_argument("--arms", nargs="+", choices=every_arm, help="default: all of each task")
    parser.add_argument("--seeds", type=positive, help="of each task (default: as planned)")
    parser.add_argument("--jobs", type=positive, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--machine", default="not said", help="in words, what else ran included")
    parser.add_argument("--table", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    if arguments.table:
        part.write()
        return
    planned = {task: count for task, count in part.seeds.items() if count}
    asked = {
        task: arguments.seeds or part.seeds[task] or max(planned.values())
        for task in arguments.tasks or planned
    }
    jobs = [
        (task, arm, seed)
        for task, arm, seed in replace(part, seeds=dict.fromkeys(part.seeds, 0) | asked).missing()
        if arm in (arguments.arms or every_arm)
    ]
    made = provenance(arguments.machine)
    try:
        run_all(jobs, part.run, part.file, made, at_once=arguments.jobs)
    finally:
        part.write()
