"""The runner of a suite's trials, each of which is a Ray task.

They are plain tasks: the state of each is in its folder and nowhere else, so that there is no
second record to keep consistent, and this process can be killed at any moment.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..cluster.errors import ScaleError
from ..runs.errors import first_line
from ..training.interrupts import on_interrupt
from .display import Status, SuiteDisplay
from .file import Suite
from .task import Task, checkpoint_step, lock_time, mismatch, reached_step, result_of, run_trial
from .trials import Trial

_LOOK_SECONDS = 1.0
_SAVE_SECONDS = 120.0
"""How long trials may take to save when they are asked to stop."""


@dataclass
class Ended:
    """How a suite's trials ended, by name: the result of each, or why it failed for good."""

    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    trials: dict[str, Trial] = field(default_factory=dict)
    """All trials that were begun."""
    interrupted: bool = False


class Source(Protocol):
    """A source of trials."""

    def more(self, ended: Ended) -> Sequence[Trial]:
        """Return trials to begin now; called until it returns none, and when a trial has ended."""
        ...


class Grid:
    """A source that gives all trials at once; Ray queues those that it has no room for."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._trials = trials

    def more(self, ended: Ended) -> Sequence[Trial]:
        """Return all of them the first time, and then none."""
        return [] if ended.trials else self._trials


@dataclass
class _Attempt:
    """A trial in progress, through all its attempts."""

    trial: Trial
    task: Task
    failures: int = 0
    """Failures in a row without a new checkpoint between them."""
    failed_at: int = -1
    lock_before: int | None = None


def task_for(trial: Trial, suite: Suite, folder: Path) -> Task:
    """Return the task of a trial, whose run is in its own folder under `folder`/runs."""
    return Task(
        folder=(folder / "runs" / trial.name).absolute(),
        config_text=trial.config.to_yaml(),
        episodes=suite.evaluation.episodes,
        noise=suite.evaluation.noise,
    )


class Runner:
    """The runner of a suite's trials on the Ray cluster that this process is connected to."""

    def __init__(self, suite: Suite, folder: Path, source: Source, display: SuiteDisplay) -> None:
        """Store the parts; nothing starts before `run`."""
        import ray
        import ray.exceptions

        self._ray = ray
        self._suite = suite
        self._folder = folder
        self._source = source
        self._display = display
        asked = suite.resources
        self._remote = ray.remote(run_trial).options(
            num_cpus=asked.cpus, num_gpus=asked.gpus, max_retries=0, name="trial"
        )
        self._running: dict[Any, _Attempt] = {}
        self._ended = Ended()
        self._steps: dict[str, int] = {}

    def run(self) -> Ended:
        """Run trials until all have ended, or an interrupt; raises ScaleError if Ray is lost."""
        ended = self._ended

        def interrupt() -> None:
            ended.interrupted = True

        with on_interrupt(interrupt):
            try:
                self._begin()
                while self._running and not ended.interrupted:
                    self._wait()
                if ended.interrupted:
                    self._stop()
            except self._ray.exceptions.RaySystemError as error:
                raise ScaleError(f"Ray is lost: {error}; repeat the command to continue") from error
            finally:
                self._display.close()
        return ended

    def _begin(self) -> None:
        """Begin the trials that the source gives; those that are already done end at once."""
        while given := self._source.more(self._ended):
            for trial in given:
                self._ended.trials[trial.name] = trial
                task = task_for(trial, self._suite, self._folder)
                if (different := mismatch(task.folder, trial.config)) is not None:
                    self._fail(trial, different)
                elif (result := result_of(task)) is not None:
                    self._ended.results[trial.name] = result
                else:
                    self._submit(_Attempt(trial, task))

    def _submit(self, attempt: _Attempt) -> None:
        attempt.lock_before = lock_time(attempt.task.folder)
        self._running[self._remote.remote(attempt.task)] = attempt

    def _wait(self) -> None:
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=_LOOK_SECONDS)
        for reference in ready:
            self._end_or_retry(self._running.pop(reference), reference)
            self._begin()
        self._display.show(self._statuses())

    def _end_or_retry(self, attempt: _Attempt, reference: Any) -> None:
        try:
            answer: dict[str, str] = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            answer = {"state": "failed", "reason": _reason(error)}
        trial = attempt.trial
        result = result_of(attempt.task)
        if result is not None:
            self._ended.results[trial.name] = result
            self._display.say(f"{trial.name}: {_outcome(result)}")
        elif answer["state"] == "diverged":
            self._fail(trial, answer["reason"])
        else:
            reason = answer.get("reason", "it was stopped from outside")
            step = checkpoint_step(attempt.task.folder)
            attempt.failures = attempt.failures + 1 if step <= attempt.failed_at else 1
            attempt.failed_at = step
            if attempt.failures > self._suite.retries:
                self._fail(trial, reason)
            else:
                self._display.say(f"{trial.name}: tried again from step {step:,}: {reason}")
                self._submit(attempt)

    def _fail(self, trial: Trial, reason: str) -> None:
        self._ended.failures[trial.name] = reason
        self._display.say(f"{trial.name}: failed: {reason}")

    def _stop(self) -> None:
        """Ask the running trials to save and end, and wait for them."""
        self._display.close()
        self._display.say("Stopping: trials that run save a checkpoint …")
        for reference in self._running:
            self._ray.cancel(reference)
        left = list(self._running)
        end = time.monotonic() + _SAVE_SECONDS
        while left and time.monotonic() < end:
            _, left = self._ray.wait(left, num_returns=len(left), timeout=1.0)

    def _statuses(self) -> dict[str, Status]:
        attempts = {attempt.trial.name: attempt for attempt in self._running.values()}
        return {
            name: self._status(trial, attempts.get(name))
            for name, trial in self._ended.trials.items()
        }

    def _status(self, trial: Trial, attempt: _Attempt | None) -> Status:
        name, steps = trial.name, trial.config.training.steps
        if name in self._ended.results:
            return Status("done", self._ended.results[name]["step"], steps)
        if attempt is None:
            return Status("failed", self._steps.get(name, 0), steps)
        folder = attempt.task.folder
        running = lock_time(folder) != attempt.lock_before
        if running or name not in self._steps:
            self._steps[name] = reached_step(folder)
        return Status("running" if running else "queued", self._steps[name], steps)


def _outcome(result: dict[str, Any]) -> str:
    means = [f"{one['mean']:.2f} (noise {one['noise']})" for one in result["evaluations"].values()]
    how = "solved" if result["reason"] == "solved" else "done"
    return f"{how} at step {result['step']:,}, mean return {', '.join(means)}"


def _reason(error: Exception) -> str:
    """Return in one line why a task ended."""
    raised = getattr(error, "cause", None)
    if raised is not None:
        return f"{type(raised).__name__}: {first_line(raised)}"
    kinds = {
        "WorkerCrashedError": "its process died",
        "NodeDiedError": "its node was lost",
        "OutOfMemoryError": "its node ran out of memory, and Ray ended it",
        "TaskCancelledError": "it was cancelled",
    }
    name = type(error).__name__
    return kinds.get(name, f"{name}: {first_line(error)}")
