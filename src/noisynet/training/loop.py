"""The training loop: a source plays, a learner learns from it, events say what happens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar

from ..agents import Agent, ValueAgent
from .events import CheckpointDue, Event, FiguresTaken, TrainingEnded
from .progress import Progress

AgentT = TypeVar("AgentT", bound=Agent)
ExperienceT = TypeVar("ExperienceT")
"""What a source hands to its learner, or None: there is nothing yet, or it is in a replay."""


class Source(ABC, Generic[ExperienceT]):
    """A source of experience: environments in this process, or samplers elsewhere."""

    @abstractmethod
    def play(self, progress: Progress) -> Generator[Event, None, ExperienceT | None]:
        """Play and count a few steps; yield the games that ended, and return what to learn from."""

    @abstractmethod
    def figures(self, progress: Progress) -> dict[str, float]:
        """Return figures of the acting noise and of the source, by their names in metrics."""

    def advance(
        self, progress: Progress, learn: Callable[[ExperienceT | None], Iterator[Event]]
    ) -> Iterator[Event]:
        """Play a few steps, then learn from them."""
        experience = yield from self.play(progress)
        yield from learn(experience)

    def may_update(self) -> bool:
        """Return whether one more update may be taken before more is played."""
        return True

    def close(self) -> None:
        """End the threads or samplers that play."""

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain JSON values; if empty, it starts new games."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""


class Learner(ABC, Generic[AgentT, ExperienceT]):
    """A learner, which trains its agent on a source's experience."""

    agent: AgentT
    """The agent that is trained."""

    @abstractmethod
    def learn(
        self, progress: Progress, experience: ExperienceT | None, may_update: Callable[[], bool]
    ) -> Iterator[Event]:
        """Take the updates that are due."""

    @property
    def must_commit(self) -> bool:
        """Whether a checkpoint is needed now."""
        return False

    def commit(self) -> dict[str, Any]:
        """Write to disk what is kept outside a checkpoint; return the checkpoint's entry for it."""
        return {}

    def _figures_taken(self, progress: Progress, figures: dict[str, float]) -> FiguresTaken:
        """Return the event with some figures of the last updates, and with the agent's own."""
        figures = {**figures, "updates": float(self.agent.updates)}
        if isinstance(self.agent, ValueAgent) and self.agent.epsilon is not None:
            figures["epsilon"] = self.agent.epsilon(progress.step)
        return FiguresTaken(step=progress.step, figures=figures | self.agent.figures())

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain JSON values."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""


class TrainingLoop:
    """The loop that trains an agent: it plays and learns by turns until the run is over.

    It yields events, to which everything else listens. `progress.stop()` ends it once the steps in
    progress have been played.
    """

    def __init__(self, progress: Progress, source: Source[Any], learner: Learner[Any, Any]) -> None:
        """Take the parts; nothing is played before `run` is iterated."""
        self.progress = progress
        self.source = source
        self.learner = learner

    @property
    def agent(self) -> Agent:
        """The agent that is trained."""
        return self.learner.agent

    def run(self) -> Iterator[Event]:
        """Play and learn until all steps are taken, the task is solved, or a stop is asked for."""
        try:
            while (reason := self.progress.end) is None:
                yield from self.source.advance(self.progress, self._learn)
                if self.progress.checkpoint_due(needed=self.learner.must_commit):
                    yield CheckpointDue(step=self.progress.step)
        finally:
            self.source.close()
        yield TrainingEnded(step=self.progress.step, reason=reason)

    def _learn(self, experience: Any) -> Iterator[Event]:
        """Take the updates that are due, and add the source's figures to theirs."""
        for event in self.learner.learn(self.progress, experience, self.source.may_update):
            if isinstance(event, FiguresTaken):
                event = replace(event, figures=event.figures | self.source.figures(self.progress))
            yield event

    def commit(self) -> dict[str, Any]:
        """Write to disk what is kept outside a checkpoint; return the checkpoint's entry for it."""
        return self.learner.commit()

    def state(self) -> dict[str, Any]:
        """Return the state of progress, learner and source, as plain JSON values."""
        return {**self.progress.state(), **self.learner.state(), **self.source.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.progress.restore(state)
        self.learner.restore(state)
        self.source.restore(state)
