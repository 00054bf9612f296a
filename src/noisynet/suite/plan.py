"""A suite, from its file to its scores, and the contents of its folder.

suite.yaml           the file that it was last started with
suite.lock           held by the process that runs it
runs/NAME/           the run of each trial, with `evaluation.json` once it is done
scores.csv           scores by game, beside published ones
overall.csv          human-normalised scores over all games, beside published ones
search.csv           the points of a search, the best first
summary.json         all of these scores, and why trials failed
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cluster.connection import connect
from ..cluster.errors import ScaleError
from ..runs.locks import InUse, Lock
from .display import SuiteDisplay
from .file import Suite, SuiteErrors, read_suite
from .results import suite_scores, to_csv
from .runner import Ended, Grid, Runner, task_for
from .search import SearchSource
from .task import mismatch, reached_step, result_of, training_seconds, write_atomically
from .trials import Trial, grid_trials


@dataclass(frozen=True)
class Plan:
    """A suite that has been checked, before anything is started."""

    name: str
    suite: Suite
    text: str
    folder: Path
    trials: list[Trial]
    """All trials of a grid; for a search, the trials of one corner of its space."""
    source: Grid | SearchSource

    def steps_left(self) -> dict[str, int]:
        """Count the agent steps that each known trial still has to take."""
        left: dict[str, int] = {}
        for trial in self.trials:
            task = task_for(trial, self.suite, self.folder)
            steps = trial.config.training.steps - reached_step(task.folder)
            left[trial.name] = 0 if result_of(task) is not None else max(steps, 0)
        return left

    @property
    def points(self) -> int:
        """How often the trials are run: once for each point of a search, once for a grid."""
        return 1 if self.suite.search is None else self.suite.search.trials

    @property
    def steps(self) -> int:
        """The agent steps of the whole suite, including those that are already done."""
        return self.points * sum(trial.config.training.steps for trial in self.trials)


def plan(file: str, out: Path | None = None) -> Plan:
    """Read a suite and check all of it; raises SuiteErrors with everything that is wrong."""
    text, suite, problems = read_suite(file)
    name = Path(file).stem
    folder = out or Path("runs") / name
    if suite is None:
        raise SuiteErrors(problems)
    try:
        if suite.search is None:
            trials = grid_trials(suite)
            source = Grid(trials)
            found = [mismatch(task_for(one, suite, folder).folder, one.config) for one in trials]
            problems += [different for different in found if different is not None]
        else:
            source = SearchSource(suite)
            trials = source.first
    except SuiteErrors as error:
        raise SuiteErrors([*problems, *error.problems]) from None
    if problems:
        raise SuiteErrors(problems)
    return Plan(name, suite, text, folder, trials, source)


def run(planned: Plan, address: str | None, display: SuiteDisplay) -> dict[str, Any]:
    """Run the unfinished trials of a suite, and return a summary with its scores, ready for JSON.

    Raises ScaleError if Ray cannot run the suite. After an interrupt, or if this process is killed,
    the same call continues from the folder.
    """
    with _locked(planned.folder):
        write_atomically(planned.folder / "suite.yaml", planned.text)
        asked = planned.suite.resources
        with connect(address, cpus=asked.cpus, shared=planned.folder) as cluster:
            for name, most in (("cpus", cluster.largest), ("gpus", cluster.gpus)):
                # Ray would let the trials wait for ever.
                if (got := getattr(asked, name)) > most:
                    raise ScaleError(
                        f"resources.{name}: got {got:g}, and no node has more than {most:g}"
                    )
            display.say(
                f"{planned.name} in {planned.folder}, on {cluster.address}: "
                f"{cluster.nodes} node{'s' * (cluster.nodes != 1)}, {cluster.cpus:g} CPUs"
            )
            ended = Runner(planned.suite, planned.folder, planned.source, display).run()
        source = planned.source
        summary: dict[str, Any] = {
            "suite": planned.name,
            "folder": str(planned.folder),
            "trials": len(ended.trials),
            "done": len(ended.results),
            "failed": dict(sorted(ended.failures.items())),
            "interrupted": ended.interrupted,
            **scores(planned, ended),
            "search": source.table(ended) if isinstance(source, SearchSource) else None,
            "runs": [str(planned.folder / "runs" / name) for name in sorted(ended.results)],
        }
        if not ended.interrupted:
            _write_tables(planned.folder, summary)
    return summary


def scores(planned: Plan, ended: Ended) -> dict[str, Any]:
    """Summarise the trials that are done, as `suite_scores` does, with their training times."""
    folder = planned.folder / "runs"
    seconds = {name: training_seconds(folder / name) for name in ended.results}
    return suite_scores(ended.trials, ended.results, seconds, planned.suite.published)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a suite's folder; raises ScaleError if another process runs the suite."""
    lock = Lock(folder / "suite.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except InUse as error:
        raise ScaleError(f"{folder}: its suite is being run by {error.holder}") from None
    except OSError as error:
        raise ScaleError(f"{folder}: cannot be made: {error.strerror or error}") from error
    with lock:
        yield


def _write_tables(folder: Path, summary: dict[str, Any]) -> None:
    write_atomically(folder / "scores.csv", to_csv(summary["games"]))
    if summary["overall"]:
        write_atomically(
            folder / "overall.csv", to_csv([*summary["overall"], *summary["published"]])
        )
    if summary["search"]:
        write_atomically(folder / "search.csv", to_csv(summary["search"]))
    write_atomically(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
