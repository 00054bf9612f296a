"""Put a run together from its config and folder, train it, and keep it on disk."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np

from .. import __version__
from ..agents import LossNotFinite
from ..envs import UnusableEnvironment
from ..runs import checkpoint
from ..runs import config as run_config
from ..runs.config import Config
from ..runs.errors import RunError
from ..runs.folder import RunFolder
from ..runs.metrics import MetricsWriter
from ..runs.sections import SEEDS
from .asynchronous import WorkersFailed
from .choose import check_device, resolve
from .events import (
    CheckpointDue,
    Event,
    FiguresTaken,
    GameFinished,
    TrainingEnded,
    WorkerRestarted,
)
from .parts import Loop, OwnProcess, Parts, PartsBuilder, agent_for, environments_of


class Listener(Protocol):
    """Hear what happens in a run: a display, for one."""

    def started(self, folder: Path, config: Config, step: int, notes: list[str]) -> None:
        """Hear that training starts or goes on at a step, with remarks for the user."""
        ...

    def heard(self, event: Event, elapsed: float) -> None:
        """Hear an event and the seconds of training so far, former sessions included."""
        ...

    def closed(self) -> None:
        """Hear that nothing more comes."""
        ...


class Diverged(RunError):
    """Say that the loss became NaN or infinite, and where the state was saved."""


@dataclass(frozen=True)
class Outcome:
    """How a session of training ended."""

    folder: Path
    reason: str
    step: int
    mean_return: float | None


def start(
    config: Config,
    path: Path | Callable[[], Path],
    listeners: Iterable[Listener] = (),
    builder: PartsBuilder | None = None,
) -> Outcome:
    """Train a new run to its end; see `train`."""
    return _outcome(train(config, path, listeners, builder))


def resume(
    path: Path, listeners: Iterable[Listener] = (), builder: PartsBuilder | None = None
) -> Outcome:
    """Go on with a run to its end; see `train_on`."""
    return _outcome(train_on(path, listeners, builder))


def _outcome(events: Generator[Event, None, Outcome]) -> Outcome:
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


def train(
    config: Config,
    path: Path | Callable[[], Path],
    listeners: Iterable[Listener] = (),
    builder: PartsBuilder | None = None,
) -> Generator[Event, None, Outcome]:
    """Train a new run in a new or empty folder, and yield what happens; gives its outcome.

    Training goes on while events are asked for; a loop that is left saves the run and ends it. A
    function instead of a path is called once the config has proved to work. `builder` puts the
    run's parts together; without one they are all in this process. Raises RunError with one line
    where the run cannot begin, which leaves no folder behind, and Diverged for a loss that
    is not finite.
    """
    if isinstance(path, Path):
        RunFolder.check_free(path)
    check_device(config.training.device)
    with environments_of(config) as probe:
        shape, dtype = probe.observation_shape, np.dtype(probe.observation_dtype)
        # Before there is a folder: a config that no agent can be built from leaves nothing behind.
        agent_for(config.replaced(device="cpu", precision="float32"), probe)
        config = resolve(config, shape, dtype, probe.action_count)
    place = path if isinstance(path, Path) else path()
    with (
        RunFolder.create(place, config.to_yaml()) as folder,
        environments_of(config) as environments,
    ):
        try:
            parts = (builder or OwnProcess()).new(config, environments, folder)
        except RunError:
            folder.discard()
            raise
        with MetricsWriter(folder.path) as metrics:
            session = _Session(folder, parts, metrics, list(listeners), elapsed=0.0)
            return (yield from session.run([]))


def train_on(
    path: Path, listeners: Iterable[Listener] = (), builder: PartsBuilder | None = None
) -> Generator[Event, None, Outcome]:
    """Go on with a run from its newest checkpoint, as if nothing had happened; as `train` does.

    Raises RunError with one line for a folder that is missing, damaged, of a newer format or in
    use.
    """
    folder = RunFolder.open(path)
    build = builder or OwnProcess()
    with folder.lock():
        config = run_config.from_yaml(folder.config_text, str(folder.config_file))
        check_device(config.training.device)
        found = checkpoint.read_newest(folder.checkpoints)
        # Games that cannot be restored start anew, and not as the run's first games did.
        seed = None if found is None else (config.training.seed + found.step) % SEEDS
        with environments_of(config, seed=seed) as environments:
            notes: list[str] = []
            step, elapsed, committed = 0, 0.0, 0
            if found is None:
                shutil.rmtree(folder.replay, ignore_errors=True)
                notes.append("no checkpoint yet: training starts again from the first step")
                parts = build.new(config, environments, folder)
            else:
                parts = build.restored(config, environments, folder, found)
                step, elapsed = found.step, float(found.state["elapsed"])
                committed = int(found.state["metrics_bytes"])
                if config.learning.algorithm == "a3c":
                    notes.append("asynchronous workers start new games")
                elif config.scale.actors is not None:
                    notes.append("sampler actors start new games")
                elif not environments.can_save_state:
                    notes.append(
                        f"the state of {config.environment.environment} cannot be saved: "
                        "the games in flight start anew"
                    )
            with MetricsWriter(folder.path, resume_at=step, committed_bytes=committed) as metrics:
                session = _Session(folder, parts, metrics, list(listeners), elapsed)
                return (yield from session.run(notes))


class _Session:
    """One process's part of a run: writes what the loop tells, and saves it."""

    def __init__(
        self,
        folder: RunFolder,
        parts: Parts,
        metrics: MetricsWriter,
        listeners: list[Listener],
        elapsed: float,
    ) -> None:
        self._folder = folder
        self._loop = loop = parts.loop
        self._commit = parts.commit
        self._metrics = metrics
        self._listeners = listeners
        self._started = time.perf_counter() - elapsed
        self._speed = (time.perf_counter(), loop.step)
        self._checkpoint_seconds: float | None = None

    @property
    def _elapsed(self) -> float:
        return time.perf_counter() - self._started

    def run(self, notes: list[str]) -> Generator[Event, None, Outcome]:
        for listener in self._listeners:
            listener.started(self._folder.path, self._loop.config, self._loop.step, notes)
        ended: TrainingEnded | None = None
        events = self._loop.run()
        try:
            with _stop_on_signals(self._loop):
                for event in events:
                    self._write(event)
                    if isinstance(event, CheckpointDue | TrainingEnded):
                        self._save()
                    if isinstance(event, TrainingEnded):
                        ended = event
                    self._tell(event)
                    yield event
        except GeneratorExit:
            # Nobody asks for more: the step in progress is finished, and what was learned is kept.
            self._loop.stop()
            for event in events:
                self._write(event)
            self._save()
            raise
        except LossNotFinite as error:
            raise Diverged(self._keep_for_inspection(error)) from error
        except (UnusableEnvironment, WorkersFailed) as error:
            self._save()
            raise RunError(f"{error}; the run was saved at step {self._loop.step}") from error
        finally:
            if isinstance(events, Generator):
                # Whatever broke off the run, no process of it stays behind.
                events.close()
            for listener in self._listeners:
                listener.closed()
        assert ended is not None, "the loop ends with TrainingEnded"
        return Outcome(self._folder.path, ended.reason, ended.step, self._loop.mean_return)

    def _tell(self, event: Event) -> None:
        """Tell the listeners; one that can no longer speak ends the run in good order."""
        for listener in list(self._listeners):
            try:
                listener.heard(event, self._elapsed)
            except (OSError, SystemExit):
                # A closed pipe or a full disk behind standard output; rich leaves by SystemExit.
                self._listeners.remove(listener)
                self._loop.stop()

    def _write(self, event: Event) -> None:
        if isinstance(event, GameFinished):
            self._metrics.write(
                event.step,
                {
                    "game/number": event.game,
                    "game/return": event.game_return,
                    "game/steps": event.game_steps,
                    "game/environment": event.environment,
                    "game/mean_return": event.mean_return,
                    "time/elapsed": round(self._elapsed, 3),
                },
            )
        elif isinstance(event, FiguresTaken):
            now = time.perf_counter()
            then, step = self._speed
            self._speed = (now, event.step)
            times = {
                "time/elapsed": round(self._elapsed, 3),
                "time/steps_per_second": round((event.step - step) / (now - then), 1),
            }
            if self._checkpoint_seconds is not None:
                times["time/checkpoint"] = round(self._checkpoint_seconds, 3)
                self._checkpoint_seconds = None
            self._metrics.write(event.step, {**event.figures, **times})
        elif isinstance(event, WorkerRestarted):
            self._metrics.write(
                event.step, {"worker/number": event.worker, "worker/restarts": event.restarts}
            )

    def _state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays, agent = self._loop.agent.state()
        state = {
            "noisynet": __version__,
            "agent": agent,
            "loop": self._loop.state(),
            "elapsed": self._elapsed,
        }
        return arrays, state

    def _save(self) -> None:
        began = time.perf_counter()
        if not self._loop.agent.is_finite():
            raise LossNotFinite("the network's parameters became NaN or infinite")
        arrays, state = self._state()
        try:
            state.update(self._commit())
        except OSError as error:
            raise RunError(f"{self._folder.replay}: {error.strerror or error}") from error
        state["metrics_bytes"] = self._metrics.commit()
        checkpoint.write(self._folder.checkpoints, self._loop.step, arrays, state)
        self._checkpoint_seconds = time.perf_counter() - began

    def _keep_for_inspection(self, error: LossNotFinite) -> str:
        arrays, state = self._state()
        step = self._loop.step
        stopped = f"{error}, at step {step}; training stopped"
        try:
            kept = checkpoint.write_inspection(
                self._folder.checkpoints, f"nan_{step:09d}", step, arrays, state
            )
        except RunError as why:
            return f"{stopped}; its state could not be kept: {why}"
        return f"{stopped}, the state is kept in {kept}"


SAME_SECONDS = 3.0
"""How long after an interrupt another one is still the same; a busy process hears them late."""
_POLITE_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


@contextmanager
def _stop_on_signals(loop: Loop) -> Iterator[None]:
    """Turn Ctrl-C, a polite kill and a closed terminal into an orderly end.

    A second Ctrl-C interrupts at once. What follows at once is the first one still: what
    stands between the terminal and this process (`timeout`, `uv run`) may send each one twice.
    """
    first: float | None = None

    def ask(number: int, _frame: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        first = now if first is None else first
        if number == signal.SIGINT and now - first > SAME_SECONDS:
            raise KeyboardInterrupt
        loop.stop()

    try:
        former = {number: signal.signal(number, ask) for number in _POLITE_SIGNALS}
    except ValueError:
        # Not the main thread: signals are somebody else's.
        yield
        return
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
