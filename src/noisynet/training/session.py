"""A session of training: drives a run's loop, writes what it yields, and keeps it on disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from .. import __version__
from ..agents import LossNotFinite
from ..agents.noise_metrics import sigma_values
from ..envs import UnusableEnvironment, hangs
from ..runs import checkpoint
from ..runs.checkpoint import Checkpoint
from ..runs.config import Config, option_name
from ..runs.errors import Diverged, RunError
from ..runs.folder import RunFolder
from ..runs.metrics import MetricsWriter
from ..runs.opening import Run
from ..runs.provenance import changed_since, provenance
from .a3c import AsynchronousLoop, WorkersFailed
from .events import CheckpointDue, Event, FiguresTaken, TrainingEnded, figures_of
from .interrupts import on_interrupt
from .loop import TrainingLoop

Loop = TrainingLoop | AsynchronousLoop
"""The loops that a session can drive."""


class Assembler(AbstractContextManager[Any], Protocol):
    """A builder of a run's parts from its config; see `noisynet.assemble`."""

    config: Config

    def prepare(self, found: Checkpoint | None = None) -> Config:
        """Build the parts that need no folder; return the config with all choices made."""
        ...

    def loop(self, folder: RunFolder) -> Loop:
        """Build the loop in a run's folder; restore it if the run is resumed."""
        ...

    def notes(self) -> list[str]:
        """Return remarks for the user on resuming this run."""
        ...


class Listener(Protocol):
    """An object whose methods are called as a run goes on, such as a display."""

    def started(self, folder: Path, config: Config, step: int, notes: list[str]) -> None:
        """Handle the start or resumption at a step, with remarks for the user."""
        ...

    def on_event(self, event: Event, elapsed: float) -> None:
        """Handle an event, `elapsed` seconds of training after the run's beginning.

        Earlier sessions are included.
        """
        ...

    def closed(self) -> None:
        """Handle the end of the session: there will be no more events."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How a session of training ended."""

    folder: Path
    reason: str
    step: int
    mean_return: float | None
    before: bool = False
    """Whether the run was over already, so that nothing was trained or written."""


def finish(events: Generator[Event, None, Outcome]) -> Outcome:
    """Train to the end, and return the outcome."""
    with closing(events):
        while True:
            try:
                next(events)
            except StopIteration as end:
                return end.value


def train(
    assembler: Assembler, path: Path | Callable[[], Path], listeners: Iterable[Listener] = ()
) -> Generator[Event, None, Outcome]:
    """Train a new run in a new or empty folder; yield its events and return its outcome.

    Training advances as events are asked for; closing the generator saves the run and ends it. If
    `path` is a function, it is called for the folder once the config has proved to work. Raises
    RunError, with a message of one line, if the run cannot begin, which leaves no folder behind, or
    cannot continue; raises Diverged for a loss that is not finite.
    """
    if isinstance(path, Path):
        RunFolder.check_free(path)
    with assembler:
        config = assembler.prepare()
        place = path if isinstance(path, Path) else path()
        with RunFolder.create(place, config.to_yaml()) as folder, ExitStack() as opened:
            try:
                loop = assembler.loop(folder)
                metrics = opened.enter_context(MetricsWriter(folder.path))
                session = _Session(folder, config, loop, metrics, list(listeners), elapsed=0.0)
                session.begin([])
            except BaseException:  # an interrupt too: nothing was trained
                folder.discard()
                raise
            return (yield from session.run())


def train_on(
    run: Run,
    assembler: Assembler,
    listeners: Iterable[Listener] = (),
    *,
    changes: Mapping[str, Any] | None = None,
) -> Generator[Event, None, Outcome]:
    """Continue a run from its newest checkpoint; yield its events and return its outcome.

    `changes` are new values of fields of the config, which are written into the run's config.yaml,
    "auto" as what was chosen for it; if `steps` is among them, a run that was solved loses its
    goal. A run that is over already is
    left as it is, and no listener hears of it. Raises RunError and Diverged as `train` does, and
    RunError also for a folder that is damaged or in use, a checkpoint that does not fit the config,
    changes that are not allowed or come after the end, and a new `steps` that the run has reached.
    """
    folder, stored = run.folder, run.config
    with folder.lock(), ExitStack() as parts:
        found = run.newest_checkpoint()
        if found is None:
            run.check_unsaved()
        if changes:
            run = run.changed(found, changes)
            assembler.config = run.config
        parts.enter_context(assembler)
        step, elapsed, committed = 0, 0.0, 0
        if found is None:
            shutil.rmtree(folder.replay, ignore_errors=True)
        else:
            step, elapsed = found.step, float(found.state["elapsed"])
            committed = int(found.state["metrics_bytes"])
        config = assembler.prepare(found)
        loop = assembler.loop(folder)
        progress = loop.progress
        if found is not None and (reason := progress.end) is not None:
            if changes:
                options = ", ".join(map(option_name, changes))
                raise RunError(
                    f"{options}: would do nothing, since the run is over: it "
                    f"{'was solved' if reason == 'solved' else 'ended'} at step {progress.step:,}. "
                    "--steps gives it more to do"
                )
            return Outcome(folder.path, reason, progress.step, progress.mean_return, before=True)
        begun = parts.enter_context(ExitStack())
        if config != stored:
            former = folder.config_text
            folder.replace_config(config.to_yaml())
            # A resume that cannot begin leaves the config as it was.
            begun.callback(folder.replace_config, former)
        notes = ["no checkpoint yet: training starts again from the first step"]
        if found is not None:
            now = provenance(torch=torch.__version__)
            changed = [*run.notes(found), *changed_since(config.made_with, now)]
            notes = [*assembler.notes(), *changed]
        with MetricsWriter(folder.path, resume_at=step, committed_bytes=committed) as metrics:
            if metrics.lost:
                notes.append(f"metrics.jsonl: {metrics.lost:,} bytes of earlier figures were lost")
            session = _Session(folder, config, loop, metrics, list(listeners), elapsed)
            session.begin(notes)
            begun.pop_all()
            return (yield from session.run())


class _Session:
    """One session of a run: writes the loop's events to disk and saves checkpoints."""

    def __init__(
        self,
        folder: RunFolder,
        config: Config,
        loop: Loop,
        metrics: MetricsWriter,
        listeners: list[Listener],
        elapsed: float,
    ) -> None:
        self._folder = folder
        self._config = config
        self._loop = loop
        self._metrics = metrics
        self._listeners = listeners
        self._started = time.perf_counter() - elapsed
        self._speed = (time.perf_counter(), loop.progress.step)
        self._checkpoint_seconds: float | None = None
        parts = (folder.config_file, folder.metrics_file, folder.replay)
        self._parts = [one for one in parts if one.exists()]

    @property
    def _elapsed(self) -> float:
        return time.perf_counter() - self._started

    def begin(self, notes: list[str]) -> None:
        """Tell the listeners that training starts or resumes; if one refuses, close them all."""
        step = self._loop.progress.step
        self._metrics.describe(step, self._config.to_yaml(), self._config.effective_fields())
        try:
            self._notify(lambda one: one.started(self._folder.path, self._config, step, notes))
        except BaseException:
            self._notify(lambda one: one.closed())
            raise

    def run(self) -> Generator[Event, None, Outcome]:
        progress = self._loop.progress
        events = self._loop.run()
        try:
            ended = yield from self._handle(events)
        except LossNotFinite as error:
            raise Diverged(self._keep_for_inspection(error)) from error
        except (UnusableEnvironment, WorkersFailed) as error:
            try:
                self._save()
            except WorkersFailed:  # what cannot answer cannot be saved either
                raise RunError(f"{error}; nothing was saved since the last checkpoint") from error
            raise RunError(f"{error}; the run was saved at step {progress.step}") from error
        finally:
            if isinstance(events, Generator):
                # However the run was broken off, none of its processes may stay behind.
                events.close()
            self._notify(lambda one: one.closed())
        return Outcome(self._folder.path, ended.reason, ended.step, progress.mean_return)

    def _handle(self, events: Iterator[Event]) -> Generator[Event, None, TrainingEnded]:
        """Write each event, save, tell the listeners and yield the event; return the last one."""
        progress = self._loop.progress
        ended: TrainingEnded | None = None
        try:
            with on_interrupt(progress.stop, hung=hangs) as interrupt:
                for event in events:
                    self._write(event)
                    if isinstance(event, CheckpointDue | TrainingEnded):
                        self._save()
                    if isinstance(event, TrainingEnded):
                        ended = event
                    self._notify(lambda one, event=event: one.on_event(event, self._elapsed))
                    with interrupt.left_to_caller():
                        yield event
        except GeneratorExit:
            # The caller has left the loop: finish the step in progress, and save what was learned.
            progress.stop()
            for event in events:
                self._write(event)
            self._save()
            raise
        assert ended is not None, "the loop ends with TrainingEnded"
        return ended

    def _notify(self, what: Callable[[Listener], object]) -> None:
        """Tell the listeners; one that can no longer write ends the run in good order."""
        for listener in list(self._listeners):
            try:
                what(listener)
            except (OSError, SystemExit):
                # Standard output is a full disk or a closed pipe, for which rich raises SystemExit.
                self._listeners.remove(listener)
                self._loop.progress.stop()

    def _write(self, event: Event) -> None:
        figures = figures_of(event, self._elapsed)
        if isinstance(event, FiguresTaken):
            now = time.perf_counter()
            then, step = self._speed
            self._speed = (now, event.step)
            figures["time/steps_per_second"] = round((event.step - step) / (now - then), 1)
            if self._checkpoint_seconds is not None:
                figures["time/checkpoint"] = round(self._checkpoint_seconds, 3)
                self._checkpoint_seconds = None
        if figures:
            self._metrics.write(event.step, figures)

    def _state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays, agent = self._loop.agent.state()
        state = {
            "noisynet": __version__,
            "config": self._config.by_section(),
            "agent": agent,
            "loop": self._loop.state(),
            "elapsed": self._elapsed,
        }
        return arrays, state

    def _save(self) -> None:
        began = time.perf_counter()
        arrays, state = self._state()  # raises LossNotFinite if an update on the device has failed
        if not self._loop.agent.is_finite():
            raise LossNotFinite("the network's parameters became NaN or infinite")
        try:
            state.update(self._loop.commit())
        except OSError as error:
            raise RunError(f"{self._folder.replay}: {error.strerror or error}") from error
        state["metrics_bytes"] = self._metrics.commit()
        if gone := [one.name for one in self._parts if not one.exists()]:
            raise RunError(
                f"{self._folder.path}: {', '.join(gone)} was removed while the run trained: it "
                "could not be saved"
            )
        step = self._loop.progress.step
        checkpoint.write(self._folder.checkpoints, step, arrays, state)
        self._metrics.write_histograms(step, sigma_values(self._loop.agent.network))
        self._checkpoint_seconds = time.perf_counter() - began

    def _keep_for_inspection(self, error: LossNotFinite) -> str:
        arrays, state = self._state()
        step = self._loop.progress.step
        stopped = f"{error}, at step {step}; training stopped"
        try:
            kept = checkpoint.write_inspection(self._folder.checkpoints, step, arrays, state)
        except RunError as why:
            return f"{stopped}; its state could not be kept: {why}"
        return f"{stopped}, the state is kept in {kept}"
