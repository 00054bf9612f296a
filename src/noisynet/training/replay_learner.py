"""The learner of the value-based agent with a replay: takes the updates that are due."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from ..agents import QLearning, StaticUpdates, StepSize
from ..agents.q_learning import AnyBatch
from ..replay import annealed_beta
from .events import Event
from .loop import Learner
from .progress import Progress
from .update_schedule import UpdateSchedule


class Memory(Protocol):
    """A replay, in this process or in shards elsewhere."""

    @property
    def must_commit(self) -> bool:
        """Whether a commit is due: little room is left beside the records of the last one."""
        ...

    def can_sample(self, n_step: int) -> bool:
        """Return whether an n-step transition can be drawn."""
        ...

    def sample(
        self,
        batch_size: int,
        n_step: int,
        discount: float,
        *,
        out: Any = None,
        beta: float | None = None,
    ) -> AnyBatch | None:
        """Draw a batch, if possible into the memory of `out`; None if there is nothing after all.

        Call it only after `can_sample` has returned true.
        """
        ...

    def update_priorities(self, indices: np.ndarray, td_errors: np.ndarray) -> None:
        """Set the priorities of the transitions drawn, from their TD errors (B,)."""
        ...

    def commit(self) -> dict[str, Any]:
        """Write everything to disk; return the state from which a resumed run reopens it."""
        ...


class ReplayLearner(Learner[QLearning, None]):
    """A learner that takes updates from a replay as the steps of a run make them due.

    Args:
        agent: the agent to train.
        replay: the replay that batches are drawn from.
        schedule: when updates come due.
        batch_size: transitions in an update.
        n_step: rewards summed before bootstrapping.
        discount: γ, per step.
        target_every: steps between copies of the online net into the target net.
        step_size: schedule of the step size by steps since the warm-up; None: the optimizer's.
        beta: β of the importance weights at the start of the run, which grows to 1 at its last
            step; None: the replay has no priorities.
        log_every: updates between events with figures.
        from_graph: take updates from buffers that stay in place, on a GPU as one CUDA graph.
    """

    def __init__(
        self,
        agent: QLearning,
        replay: Memory,
        schedule: UpdateSchedule,
        *,
        batch_size: int = 32,
        n_step: int = 1,
        discount: float = 0.99,
        target_every: int = 2000,
        step_size: StepSize | None = None,
        beta: float | None = None,
        log_every: int = 100,
        from_graph: bool = False,
    ) -> None:
        self.agent = agent
        self.replay = replay
        self.schedule = schedule
        self._sizes = (batch_size, n_step, discount)
        self._n_step = n_step
        self._target_every = target_every
        self._step_size = step_size
        self._beta = beta
        self._log_every = log_every
        self._from_graph = from_graph
        # Made at the first update: it refers to tensors that restoring the agent replaces.
        self._graph: StaticUpdates | None = None
        self._batch: AnyBatch | None = None
        self._losses: list[float] = []
        self._target_copies = 0

    @property
    def must_commit(self) -> bool:
        """Whether a checkpoint is needed now because the replay is short of room."""
        return self.replay.must_commit

    def learn(
        self,
        progress: Progress,
        experience: None,  # noqa: ARG002 - it is in the replay
        may_update: Callable[[], bool],
    ) -> Iterator[Event]:
        """Take the updates that have come due, and copy to the target net when that is due."""
        agent, schedule = self.agent, self.schedule
        agent.set_penalty_weight(progress.mean_return)
        while agent.updates < schedule.updates_due(progress.step) and may_update():
            if not self.replay.can_sample(self._n_step):
                return
            beta = None
            if self._beta is not None:
                beta = annealed_beta(self._beta, progress.step, progress.steps)
            batch = self.replay.sample(*self._sizes, out=self._batch, beta=beta)
            if batch is None:
                return
            self._batch = batch
            self._update(batch)
            # The step at which this update was due, so that the order of updates and copies does
            # not depend on how many steps one vector step takes.
            due = schedule.steps_due(agent.updates)
            if due // self._target_every > self._target_copies:
                agent.copy_to_target()
                self._target_copies = due // self._target_every
            if agent.updates % self._log_every == 0:
                self._read_losses()
                figures = {"loss": float(np.mean(self._losses))}
                self._losses.clear()
                yield self._figures_taken(progress, figures)

    def _next_size(self) -> float | None:
        if self._step_size is None:
            return None
        return self._step_size(self.schedule.steps_due(self.agent.updates))

    def _update(self, batch: AnyBatch) -> None:
        if self._from_graph and self._graph is None:
            self._graph = StaticUpdates(self.agent, self._next_size())
        if self._graph is None:
            learned = self.agent.update(batch, self._next_size())
            self._losses.append(learned.loss)
            errors = learned.errors
        else:
            self._graph.update(batch, self._next_size())
            errors = None
        if self._beta is not None:
            assert batch.indices is not None, "a replay's batch has indices"
            if errors is None:
                assert self._graph is not None, "plain updates have errors at once"
                errors = self._graph.errors()
            self.replay.update_priorities(batch.indices, errors)

    def _read_losses(self) -> None:
        """Fetch the losses that are still on the device. Raises LossNotFinite."""
        if self._graph is not None:
            self._losses += self._graph.losses()

    def commit(self) -> dict[str, Any]:
        """Write the replay to disk; return the checkpoint's entry for it."""
        return {"replay": self.replay.commit()}

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain JSON values.

        Raises LossNotFinite if an update on the device has failed since the last check.
        """
        self._read_losses()
        return {"losses": list(self._losses), "target_copies": self._target_copies}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self._losses = [float(value) for value in state["losses"]]
        self._target_copies = int(state["target_copies"])
