"""The loop of the asynchronous actor-critic: processes that share parameters, and their keeper.

Nothing is locked. Each worker has a pipe of its own to the parent, so one that dies in the middle
of a message can spoil that pipe alone; the parameters, the optimizer's statistics and the counters
lie in shared memory (see shared.py).
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.process import BaseProcess
from typing import Any, cast

import torch.multiprocessing

from ...agents import ActorCritic, LossNotFinite
from ..events import CheckpointDue, EndReason, Event, FiguresTaken, TrainingEnded, WorkerRestarted
from ..progress import Progress
from ..rollout_learner import means
from .shared import Message, Shared, WorkerFailed, WorkerGame, WorkerLearned, WorkerNumber
from .worker import MakeWorker, work

_POLL_SECONDS = 0.1
_PATIENCE_SECONDS = 20.0
_CLOSING_SECONDS = 5.0
_BARREN_LIVES = 5


class WorkersFailed(RuntimeError):
    """A worker that cannot be started, or dies again and again before an update."""


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    life: int
    updates_before: int
    barren: int
    """Lives of this worker, one after the other up to now, that ended without an update."""
    failed: WorkerFailed | None = None


class AsynchronousLoop:
    """Worker processes that train one agent: kept at work, and heard.

    A worker that dies, of whatever cause, is replaced; the others do not notice. Steps count the
    decisions of all workers. Their order is that of the machine's scheduler: no two runs are alike,
    and a checkpoint taken between is a snapshot of parameters in motion.
    """

    def __init__(
        self, progress: Progress, agent: ActorCritic, make_worker: MakeWorker, *, workers: int
    ) -> None:
        """Take the agent that is trained; no process starts before `run` is iterated."""
        self.progress = progress
        self.agent = agent
        self.restarts = 0
        self._make_worker = make_worker
        self._count_of_workers = workers
        self._workers: dict[int, _Worker] = {}

    @property
    def process_ids(self) -> list[int]:
        """Ids of the worker processes, in the order of their numbers."""
        return [self._workers[number].process.pid or 0 for number in sorted(self._workers)]

    def run(self) -> Iterator[Event]:
        """Let the workers train until the budget is used, the task is solved, or `stop` is called.

        Raises LossNotFinite where a worker's loss did, and WorkersFailed where one cannot live.
        """
        shared = Shared.of(
            self.agent,
            workers=self._count_of_workers,
            steps_before=self.progress.step,
            steps=self.progress.steps,
        )
        updates_before = self.agent.updates
        reason: EndReason | None = None
        deadline = math.inf
        try:
            for number in range(self._count_of_workers):
                self._start(shared, number)
            while self._workers and time.monotonic() < deadline:
                for number, message in self._messages():
                    self._count(shared, updates_before)
                    yield from self._told(number, message)
                yield from self._bury(shared)
                self._count(shared, updates_before)
                if reason is None:
                    reason = self.progress.end
                    if reason is not None:
                        shared.stopping.fill_(True)
                        deadline = time.monotonic() + _PATIENCE_SECONDS
                if reason is None and self.progress.checkpoint_due():
                    yield CheckpointDue(step=self.progress.step)
        finally:
            shared.stopping.fill_(True)
            self._close()
            self._count(shared, updates_before)
        yield TrainingEnded(step=self.progress.step, reason=reason or "steps")

    def _close(self) -> None:
        """End the worker processes that there still are: politely, then at once."""
        for end in (None, "terminate", "kill"):
            deadline = time.monotonic() + _CLOSING_SECONDS
            for worker in self._workers.values():
                if end is not None and worker.process.is_alive():
                    getattr(worker.process, end)()
            while any(one.process.is_alive() for one in self._workers.values()):
                if time.monotonic() > deadline:
                    break
                # A worker may be waiting for room in its pipe.
                for worker in self._workers.values():
                    list(_received(worker.pipe))
                time.sleep(0.01)
        for worker in self._workers.values():
            worker.pipe.close()
        self._workers.clear()

    def _count(self, shared: Shared, updates_before: int) -> None:
        self.progress.step = shared.step
        self.agent.updates = updates_before + shared.updates

    def _start(self, shared: Shared, number: int, life: int = 0, barren: int = 0) -> None:
        context = torch.multiprocessing.get_context("spawn")
        receiving, sending = cast("tuple[Connection, Connection]", Pipe(duplex=False))
        worker_number = WorkerNumber(number=number, life=life, steps_before=shared.steps_before)
        process = context.Process(
            target=work,
            args=(self._make_worker, worker_number, shared, os.getpid(), sending),
            name=f"noisynet-worker-{number}",
            daemon=True,
        )
        try:
            with _signals_held_back():
                process.start()
        except OSError as error:
            raise WorkersFailed(f"worker {number} cannot be started: {error}") from error
        # With this end open here too, the worker's death would not close the pipe.
        sending.close()
        updates = int(shared.progress[number, 1])
        self._workers[number] = _Worker(process, receiving, life, updates, barren)

    def _messages(self) -> Iterator[tuple[int, Message]]:
        """Wait a little, and yield what the workers sent, what dead ones left included."""
        pipes = [worker.pipe for worker in self._workers.values() if not worker.pipe.closed]
        wait([*pipes, *(one.process.sentinel for one in self._workers.values())], _POLL_SECONDS)
        for number, worker in list(self._workers.items()):
            for message in _received(worker.pipe):
                yield number, message

    def _told(self, number: int, message: Message) -> Iterator[Event]:
        if isinstance(message, WorkerGame):
            yield self.progress.finished(self.progress.step, message.environment, message.game)
        elif isinstance(message, WorkerLearned):
            figures = {**means(message.learned), "updates": float(self.agent.updates)}
            figures |= {**self.agent.figures(), **message.noise}
            yield FiguresTaken(step=self.progress.step, figures=figures)
        else:
            self._workers[number].failed = message

    def _bury(self, shared: Shared) -> Iterator[Event]:
        """Take the dead workers away, and start others in their place unless the run ends."""
        for number, worker in list(self._workers.items()):
            if worker.process.is_alive():
                continue
            # Between the last look and its death it may have said something.
            for message in _received(worker.pipe):
                yield from self._told(number, message)
            worker.process.join()
            worker.pipe.close()
            del self._workers[number]
            failed = worker.failed
            if failed is not None and failed.diverged:
                raise LossNotFinite(f"{failed.reason} of worker {number}")
            if self.progress.end is not None or shared.ends:
                continue
            reason = _cause(worker) if failed is None else failed.reason
            learned = int(shared.progress[number, 1]) > worker.updates_before
            barren = 0 if learned else worker.barren + 1
            if barren >= _BARREN_LIVES:
                raise WorkersFailed(
                    f"worker {number} died {barren} times in a row without an update: {reason}"
                )
            self.restarts += 1
            self._start(shared, number, worker.life + 1, barren)
            yield WorkerRestarted(
                step=shared.step, worker=number, reason=reason, restarts=self.restarts
            )

    def commit(self) -> dict[str, Any]:
        """Return nothing: a checkpoint holds all that there is."""
        return {}

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs: games in flight are not part of it."""
        return self.progress.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned; every game starts anew."""
        self.progress.restore(state)


def _received(pipe: Connection) -> Iterator[Message]:
    """Yield what lies in a pipe; a message that its sender died over is lost."""
    try:
        while pipe.poll():
            yield pipe.recv()
    except (EOFError, OSError):
        return


def _cause(worker: _Worker) -> str:
    status = worker.process.exitcode or 0
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"ended with exit status {status}"


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Keep Ctrl-C and a closed terminal from a process that is started inside, for all its life.

    They reach this process when it is left. A blocked signal stays blocked in the child; where
    there is no such thing, the worker ignores them as soon as it runs.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
