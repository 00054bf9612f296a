"""The loop of the asynchronous actor-critic, which keeps worker processes running.

Nothing is locked. Each worker has its own pipe to the parent, so a worker that dies in the middle
of a message spoils no other pipe. The parameters, the optimizer's statistics and the counters are
in shared memory (see shared.py).
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
_FRUITLESS_LIVES = 5


class WorkersFailed(RuntimeError):
    """A failure of a run's workers or samplers that a restart does not cure.

    They cannot be started, die repeatedly before their first update or fragment, do not answer, or
    have no room for what they send.
    """


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    life: int
    updates_before: int
    fruitless: int
    """Number of consecutive lives just before this one that ended without an update."""
    failed: WorkerFailed | None = None


class AsynchronousLoop:
    """The loop in which worker processes train one agent.

    A worker that dies, for whatever reason, is replaced; the others do not notice. Steps are
    counted over all workers. Their order depends on the machine's scheduler, so no two runs are
    alike, and a checkpoint is a snapshot of parameters that the workers go on changing meanwhile.
    """

    def __init__(
        self, progress: Progress, agent: ActorCritic, make_worker: MakeWorker, *, workers: int
    ) -> None:
        """Take the agent to train; no process starts before `run` is iterated."""
        self.progress = progress
        self.agent = agent
        self.restarts = 0
        self._make_worker = make_worker
        self._count_of_workers = workers
        self._workers: dict[int, _Worker] = {}

    @property
    def process_ids(self) -> list[int]:
        """Process ids of the workers, in the order of the workers' numbers."""
        return [self._workers[number].process.pid or 0 for number in sorted(self._workers)]

    def run(self) -> Iterator[Event]:
        """Train until all steps are taken, the task is solved, or `progress.stop` is called.

        Raises LossNotFinite if a worker's loss is not finite, and WorkersFailed if a worker cannot
        be started or dies repeatedly without an update.
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
                    yield from self._handle(number, message)
                yield from self._replace_dead(shared)
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
        """End the remaining workers: wait for them, then terminate them, then kill them."""
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

    def _start(self, shared: Shared, number: int, life: int = 0, fruitless: int = 0) -> None:
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
        self._workers[number] = _Worker(process, receiving, life, updates, fruitless)

    def _messages(self) -> Iterator[tuple[int, Message]]:
        """Wait a moment, then yield the workers' messages, including those of dead workers."""
        pipes = [worker.pipe for worker in self._workers.values() if not worker.pipe.closed]
        wait([*pipes, *(one.process.sentinel for one in self._workers.values())], _POLL_SECONDS)
        for number, worker in list(self._workers.items()):
            for message in _received(worker.pipe):
                yield number, message

    def _handle(self, number: int, message: Message) -> Iterator[Event]:
        if isinstance(message, WorkerGame):
            yield self.progress.finished(self.progress.step, message.environment, message.game)
        elif isinstance(message, WorkerLearned):
            figures = {**means(message.learned), "updates": float(self.agent.updates)}
            figures |= {**self.agent.figures(), **message.noise}
            yield FiguresTaken(step=self.progress.step, figures=figures)
        else:
            self._workers[number].failed = message

    def _replace_dead(self, shared: Shared) -> Iterator[Event]:
        """Remove dead workers, and start others in their place unless the run is ending."""
        for number, worker in list(self._workers.items()):
            if worker.process.is_alive():
                continue
            # It may have sent messages between the last look into its pipe and its death.
            for message in _received(worker.pipe):
                yield from self._handle(number, message)
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
            fruitless = 0 if learned else worker.fruitless + 1
            if fruitless >= _FRUITLESS_LIVES:
                raise WorkersFailed(
                    f"worker {number} died {fruitless} times in a row without an update: {reason}"
                )
            self.restarts += 1
            self._start(shared, number, worker.life + 1, fruitless)
            yield WorkerRestarted(
                step=shared.step, worker=number, reason=reason, restarts=self.restarts
            )

    def commit(self) -> dict[str, Any]:
        """Return an empty dictionary: nothing is stored outside the checkpoint."""
        return {}

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs; it does not include games in progress."""
        return self.progress.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned; all workers start new games."""
        self.progress.restore(state)


def _received(pipe: Connection) -> Iterator[Message]:
    """Yield the messages in a pipe; one that its sender died before finishing is lost."""
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
    """Block SIGINT and SIGHUP here for the time being, and for good in a process started meanwhile.

    A child process inherits blocked signals. Where signals cannot be blocked (Windows), a worker
    ignores these two as soon as it runs.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
