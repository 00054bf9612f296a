"""Run trials as Ray tasks until none is left.

Plain tasks, one for each trial: what a trial has reached stands in its folder, so that there is no
second record of the experiment to keep true beside it. This process can be killed at any moment.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from ..cluster.errors import ScaleError
from ..training.session import SAME_SECONDS
from .display import Status, SuiteDisplay
from .file import Suite
from .task import (
    Order,
    checkpoint_step,
    held_since,
    mismatch,
    reached_step,
    result_of,
    run_trial,
)
from .trials import Trial

_LOOK_SECONDS = 1.0
_SAVE_SECONDS = 120.0
"""How long trials may take to save when they are asked to stop."""


class Source(Protocol):
    """Give out trials, and hear how they ended."""

    def more(self) -> Sequence[Trial]:
        """Give trials to begin now; asked again after every end."""
        ...

    def ended(self, trial: Trial, result: dict[str, Any] | None) -> None:
        """Hear that a trial is done, with its result, or has failed for good."""
        ...


class Grid:
    """Give out all trials at once: Ray queues what it has no room for."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._trials = list(trials)

    def more(self) -> Sequence[Trial]:
        """Give them the first time it is asked."""
        given, self._trials = self._trials, []
        return given

    def ended(self, trial: Trial, result: dict[str, Any] | None) -> None:
        """Have nothing to do."""


@dataclass
class Ended:
    """Hold how a suite came out: each trial's result, or why there is none."""

    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    trials: dict[str, Trial] = field(default_factory=dict)
    interrupted: bool = False


@dataclass
class _Work:
    """Follow one trial."""

    trial: Trial
    order: Order
    failures: int = 0
    """Failures in a row without a new checkpoint between."""
    failed_at: int = -1
    lock_before: int | None = None


def order_for(trial: Trial, suite: Suite, folder: Path) -> Order:
    """Say what a trial's process is to do; runs lie under `folder`/runs."""
    return Order(
        folder=(folder / "runs" / trial.name).absolute(),
        config_text=trial.config.to_yaml(),
        episodes=suite.evaluation.episodes,
        noise=suite.evaluation.noise,
    )


class Runner:
    """Keep trials going on a Ray that this process is connected to."""

    def __init__(self, suite: Suite, folder: Path, source: Source, display: SuiteDisplay) -> None:
        """Take the parts; nothing runs before `run`."""
        import ray
        import ray.exceptions

        self._ray = ray
        self._suite = suite
        self._folder = folder
        self._source = source
        self._display = display
        asked = suite.resources
        self._task = ray.remote(run_trial).options(
            num_cpus=asked.cpus, num_gpus=asked.gpus, max_retries=0, name="trial"
        )
        self._running: dict[Any, _Work] = {}
        self._ended = Ended()
        self._steps: dict[str, int] = {}

    def run(self) -> Ended:
        """Run until all trials are done or have failed, or an interrupt; raises ScaleError."""
        with _interrupts() as interrupted:
            try:
                self._begin()
                while self._running and not interrupted:
                    self._look()
                if interrupted:
                    self._stop()
            except self._ray.exceptions.RaySystemError as error:
                raise ScaleError(f"Ray is lost: {error}; start again to go on") from error
            finally:
                self._display.close()
        self._ended.interrupted = bool(interrupted)
        return self._ended

    def _begin(self) -> None:
        """Begin what the source gives; what is done already ends at once."""
        while given := self._source.more():
            for trial in given:
                work = _Work(trial, order_for(trial, self._suite, self._folder))
                self._ended.trials[trial.name] = trial
                if (different := mismatch(work.order.folder, trial.config)) is not None:
                    self._fail(work, different)
                elif (result := result_of(work.order)) is not None:
                    self._done(work, result)
                else:
                    self._submit(work)

    def _submit(self, work: _Work) -> None:
        work.lock_before = held_since(work.order.folder)
        self._running[self._task.remote(work.order)] = work

    def _look(self) -> None:
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=_LOOK_SECONDS)
        for reference in ready:
            self._hear(self._running.pop(reference), reference)
            self._begin()
        self._display.show(self._statuses())

    def _hear(self, work: _Work, reference: Any) -> None:
        try:
            answer: dict[str, str] = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            answer = {"state": "failed", "reason": _reason(error)}
        name = work.trial.name
        result = result_of(work.order)
        if result is not None:
            self._done(work, result)
            self._display.say(f"{name}: {_said(result)}")
        elif answer["state"] == "diverged":
            self._fail(work, answer["reason"])
        else:
            reason = answer.get("reason", "it was stopped from outside")
            step = checkpoint_step(work.order.folder)
            work.failures = work.failures + 1 if step <= work.failed_at else 1
            work.failed_at = step
            if work.failures > self._suite.retries:
                self._fail(work, reason)
            else:
                self._display.say(f"{name}: tried again from step {step:,}: {reason}")
                self._submit(work)

    def _done(self, work: _Work, result: dict[str, Any]) -> None:
        self._ended.results[work.trial.name] = result
        self._source.ended(work.trial, result)

    def _fail(self, work: _Work, reason: str) -> None:
        self._ended.failures[work.trial.name] = reason
        self._display.say(f"{work.trial.name}: failed: {reason}")
        self._source.ended(work.trial, None)

    def _stop(self) -> None:
        """Ask what runs to save and end, and wait for it."""
        self._display.close()
        self._display.say("Stopping: trials that run save a checkpoint …")
        for reference in self._running:
            self._ray.cancel(reference)
        left = list(self._running)
        end = time.monotonic() + _SAVE_SECONDS
        while left and time.monotonic() < end:
            _, left = self._ray.wait(left, num_returns=len(left), timeout=1.0)

    def _statuses(self) -> dict[str, Status]:
        at_work = {work.trial.name: work for work in self._running.values()}
        found: dict[str, Status] = {}
        for name, trial in self._ended.trials.items():
            steps = trial.config.training.steps
            if name in self._ended.results:
                found[name] = Status("done", self._ended.results[name]["step"], steps)
                continue
            work = at_work.get(name)
            if work is None:
                found[name] = Status("failed", self._steps.get(name, 0), steps)
                continue
            folder = work.order.folder
            running = held_since(folder) != work.lock_before
            if running or name not in self._steps:
                self._steps[name] = reached_step(folder)
            found[name] = Status("running" if running else "queued", self._steps[name], steps)
        return found


def _said(result: dict[str, Any]) -> str:
    means = [f"{one['mean']:.2f} (noise {one['noise']})" for one in result["evaluations"].values()]
    how = "solved" if result["reason"] == "solved" else "done"
    return f"{how} at step {result['step']:,}, mean return {', '.join(means)}"


def _reason(error: Exception) -> str:
    """Say in a line what became of a task."""
    cause = getattr(error, "cause", None)
    if cause is not None:
        return f"{type(cause).__name__}: {str(cause).strip().splitlines()[0] if str(cause) else ''}"
    kinds = {
        "WorkerCrashedError": "its process died",
        "NodeDiedError": "its node was lost",
        "OutOfMemoryError": "its node ran out of memory, and Ray ended it",
        "TaskCancelledError": "it was cancelled",
    }
    name = type(error).__name__
    return kinds.get(name, f"{name}: {(str(error).strip().splitlines() or [''])[0]}")


@contextmanager
def _interrupts() -> Iterator[list[float]]:
    """Collect Ctrl-C, a polite kill and a closed terminal in a list; a second Ctrl-C ends now.

    What follows at once is the first one still: a program between the terminal and this
    one may send each twice.
    """
    got: list[float] = []

    def note(number: int, _frame: FrameType | None) -> None:
        got.append(time.monotonic())
        if number == signal.SIGINT and got[-1] - got[0] > SAME_SECONDS:
            raise KeyboardInterrupt

    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [getattr(signal, name) for name in names]
    try:
        former = {number: signal.signal(number, note) for number in numbers}
    except ValueError:  # not the main thread: signals are somebody else's
        yield got
        return
    try:
        yield got
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def check_folders(trials: Sequence[Trial], suite: Suite, folder: Path) -> list[str]:
    """List the trials whose folder holds another run than the suite asks for."""
    orders = [(trial, order_for(trial, suite, folder)) for trial in trials]
    found = [mismatch(order.folder, trial.config) for trial, order in orders]
    return [one for one in found if one is not None]
