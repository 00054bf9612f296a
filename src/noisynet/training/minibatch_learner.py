"""The learner of the value-based agent without a replay: epochs of minibatches of each rollout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from ..agents import ParallelQLearning, StaticMinibatches, StepSize, ValuesLearned
from .events import Event
from .loop import Learner
from .progress import Progress
from .rollout_learner import means
from .sources import RolloutExperience


class MinibatchLearner(Learner[ParallelQLearning, RolloutExperience]):
    """A learner that takes its agent's epochs of minibatches from each rollout.

    It takes them all at once or, while the next rollout is being played, as many at a time as
    `may_update` allows.

    Args:
        agent: the agent to train.
        step_size: schedule of the step size by agent steps; None: the optimizer's step size.
        log_every: updates between events with figures.
        from_graph: take updates from buffers that stay in place, on a GPU as one CUDA graph.
    """

    def __init__(
        self,
        agent: ParallelQLearning,
        *,
        step_size: StepSize | None = None,
        log_every: int = 100,
        from_graph: bool = False,
    ) -> None:
        self.agent = agent
        self._step_size = step_size
        self._log_every = log_every
        self._from_graph = from_graph
        # Made at the first update: it refers to tensors that restoring the agent replaces.
        self._graph: StaticMinibatches | None = None
        self._began = 0
        self._learned: list[ValuesLearned] = []

    def learn(
        self,
        progress: Progress,
        experience: RolloutExperience | None,
        may_update: Callable[[], bool],
    ) -> Iterator[Event]:
        """Start on a new rollout, if there is one, and take the updates that are allowed."""
        agent = self.agent
        agent.set_penalty_weight(progress.mean_return)
        if experience is not None:
            # A session with `overlap` leaves a rollout to the next one, which may be without it.
            yield from self._learn_current(progress, may_update)
            agent.begin(experience.rollout, experience.passes)
            self._began = experience.step
        yield from self._learn_current(progress, may_update)

    def _learn_current(self, progress: Progress, may_update: Callable[[], bool]) -> Iterator[Event]:
        """Take the allowed updates of the rollout that was begun last."""
        agent = self.agent
        size = None if self._step_size is None else self._step_size(self._began)
        while agent.updates_left and may_update():
            self._update(size)
            if agent.updates % self._log_every == 0:
                self._read_learned()
                figures = means(self._learned)
                self._learned.clear()
                yield self._figures_taken(progress, figures)

    def _update(self, size: float | None) -> None:
        if self._from_graph and self._graph is None:
            self._graph = StaticMinibatches(self.agent, size)
        if self._graph is None:
            self._learned.append(self.agent.update(size))
        else:
            self._graph.update(size)

    def _read_learned(self) -> None:
        """Fetch the figures that are still on the device. Raises LossNotFinite."""
        if self._graph is not None:
            self._learned += self._graph.learned()

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain JSON values.

        Raises LossNotFinite if an update on the device has failed since the last check.
        """
        self._read_learned()
        return {"learned": [asdict(one) for one in self._learned], "began": self._began}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self._learned = [ValuesLearned(**one) for one in state["learned"]]
        self._began = int(state["began"])
