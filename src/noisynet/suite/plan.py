"""A suite from its file to its scores. Its folder holds all there is to know of it.

suite.yaml           the file that it was last started with
suite.lock           held by the process that runs it
runs/NAME/           a run each, an ordinary one, with `evaluation.json` once it is done
scores.csv           scores by game, beside the paper's
overall.csv          human-normalised scores over all games, beside the paper's
search.csv           where there is a search: its points, the best first
summary.json         the same, and what failed
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cluster.connection import connect
from ..cluster.errors import ScaleError
from .display import SuiteDisplay
from .file import Suite, SuiteErrors, read_suite, suite_name
from .results import suite_scores, to_csv
from .runner import Grid, Runner, check_folders, order_for
from .search import SearchSource
from .task import reached_step, result_of
from .trials import Trial, grid_trials


@dataclass(frozen=True)
class Plan:
    """Hold a suite that has been checked, before anything is started."""

    name: str
    suite: Suite
    text: str
    folder: Path
    trials: list[Trial]
    """All of them; for a search those of its first corner."""
    source: Grid | SearchSource

    @property
    def is_search(self) -> bool:
        """Tell whether trials come out as the search goes on."""
        return isinstance(self.source, SearchSource)

    def steps_left(self) -> dict[str, int]:
        """Count the agent steps that each known trial still has to take."""
        left: dict[str, int] = {}
        for trial in self.trials:
            order = order_for(trial, self.suite, self.folder)
            done = result_of(order) is not None
            steps = trial.config.training.steps
            left[trial.name] = 0 if done else max(steps - reached_step(order.folder), 0)
        return left

    @property
    def steps(self) -> int:
        """Count the agent steps of the whole suite, nothing being done yet."""
        once = sum(trial.config.training.steps for trial in self.trials)
        return once * (1 if self.suite.search is None else self.suite.search.trials)


def plan(file: str, out: Path | None = None) -> Plan:
    """Read a suite and check all of it; raises SuiteErrors with everything that is wrong."""
    reading = read_suite(file)
    name = suite_name(file)
    folder = out or Path("runs") / name
    suite, problems = reading.suite, reading.problems
    if suite is None:
        raise SuiteErrors(problems)
    try:
        source, trials = _source(suite)
    except SuiteErrors as error:
        raise SuiteErrors([*problems, *error.problems]) from None
    if suite.search is None:
        problems += check_folders(trials, suite, folder)
    if problems:
        raise SuiteErrors(problems)
    return Plan(name, suite, reading.text, folder, trials, source)


def _source(suite: Suite) -> tuple[Grid | SearchSource, list[Trial]]:
    if suite.search is not None:
        search = SearchSource(suite)
        return search, search.first
    trials = grid_trials(suite)
    return Grid(trials), trials


def run(planned: Plan, address: str | None, display: SuiteDisplay) -> dict[str, Any]:
    """Run what is missing of a suite, and give its scores, ready for JSON.

    Raises ScaleError where Ray cannot do it. An interrupt or any death of this process leaves a
    folder that the same call goes on with.
    """
    with _locked(planned):
        cpus = planned.suite.resources.cpus
        with connect(address, cpus=cpus, shared=planned.folder) as cluster:
            if cpus > cluster.largest:
                raise ScaleError(
                    f"resources.cpus: got {cpus}, and no node has more than {cluster.largest:g}"
                )
            display.say(
                f"{planned.name} in {planned.folder}, on {cluster.address}: "
                f"{cluster.nodes} node{'s' * (cluster.nodes != 1)}, {cluster.cpus:g} CPUs"
            )
            ended = Runner(planned.suite, planned.folder, planned.source, display).run()
        summary: dict[str, Any] = {
            "suite": planned.name,
            "folder": str(planned.folder),
            "trials": len(ended.trials),
            "done": len(ended.results),
            "failed": dict(sorted(ended.failures.items())),
            "interrupted": ended.interrupted,
            **suite_scores(ended.trials, ended.results),
            "search": planned.source.table() if isinstance(planned.source, SearchSource) else None,
            "runs": [str(planned.folder / "runs" / name) for name in sorted(ended.results)],
        }
        if not ended.interrupted:
            _write_tables(planned.folder, summary)
    return summary


def _write_tables(folder: Path, summary: dict[str, Any]) -> None:
    _write(folder / "scores.csv", to_csv(summary["games"]))
    if summary["overall"]:
        _write(folder / "overall.csv", to_csv([*summary["overall"], *summary["paper"]]))
    if summary["search"]:
        _write(folder / "search.csv", to_csv(summary["search"]))
    _write(folder / "summary.json", json.dumps(summary, indent=1) + "\n")


def _write(file: Path, text: str) -> None:
    unfinished = file.with_name(f".unfinished-{file.name}")
    try:
        unfinished.write_text(text, "utf-8")
        unfinished.replace(file)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise ScaleError(f"{file}: cannot be written: {error.strerror or error}") from error


@contextmanager
def _locked(planned: Plan) -> Iterator[None]:
    """Be the only process that runs this folder's suite; the lock goes with the process."""
    folder = planned.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "suite.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ScaleError(f"{folder}: cannot be made: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace").strip()
            raise ScaleError(
                f"{folder}: its suite is being run by {holder or 'another process'}"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        _write(folder / "suite.yaml", planned.text)
        yield
    finally:
        os.close(descriptor)
