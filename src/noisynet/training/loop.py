"""The training loop: a source plays, a learner learns from it, events say what happens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar

from ..agents import Agent
from .events import CheckpointDue, Event, FiguresTaken, TrainingEnded
from .progress import Progress

AgentT = TypeVar("AgentT", bound=Agent)
ExperienceT = TypeVar("ExperienceT")
"""What passes from source to learner, or None where there is nothing, or it is in a replay."""


class Source(ABC, Generic[ExperienceT]):
    """Where experience comes from: environments of this process, or samplers elsewhere."""

    @abstractmethod
    def play(self, progress: Progress) -> Generator[Event, None, ExperienceT | None]:
        """Play a little and count it; yield the games that ended, return what to learn from."""

    @abstractmethod
    def figures(self, progress: Progress) -> dict[str, float]:
        """Return what is seen of the noise while acting, by the names that metrics have."""

    def advance(
        self, progress: Progress, learn: Callable[[ExperienceT | None], Iterator[Event]]
    ) -> Iterator[Event]:
        """Play a little, then learn from it."""
        experience = yield from self.play(progress)
        yield from learn(experience)

    def may_update(self) -> bool:
        """Return whether one more update may be taken before more is played."""
        return True

    def close(self) -> None:
        """End what plays."""

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain JSON values; games start anew without it."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""


class Learner(ABC, Generic[AgentT, ExperienceT]):
    """What learns from a source's experience."""

    agent: AgentT
    """What is trained."""

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
        """Bring to the disk what does not stand in a checkpoint; return what refers to it."""
        return {}

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain JSON values."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""


class TrainingLoop:
    """Trains an agent: plays, learns, plays again, until the run is over.

    It yields events; everything else listens. `progress.stop()` ends it after what is being played.
    """

    def __init__(self, progress: Progress, source: Source[Any], learner: Learner[Any, Any]) -> None:
        """Take the parts; nothing is played before `run` is iterated."""
        self.progress = progress
        self.source = source
        self.learner = learner

    @property
    def agent(self) -> Agent:
        """What is trained."""
        return self.learner.agent

    def run(self) -> Iterator[Event]:
        """Play and learn until the budget is used, the task is solved, or a stop is asked for."""
        try:
            while (reason := self.progress.end) is None:
                yield from self.source.advance(self.progress, self._learn)
                if self.progress.checkpoint_due(needed=self.learner.must_commit):
                    yield CheckpointDue(step=self.progress.step)
        finally:
            self.source.close()
        yield TrainingEnded(step=self.progress.step, reason=reason)

    def _learn(self, experience: Any) -> Iterator[Event]:
        """Take the updates that are due; their figures get those of the source beside them."""
        for event in self.learner.learn(self.progress, experience, self.source.may_update):
            if isinstance(event, FiguresTaken):
                event = replace(event, figures=event.figures | self.source.figures(self.progress))
            yield event

    def commit(self) -> dict[str, Any]:
        """Bring to the disk what does not stand in a checkpoint; return what refers to it."""
        return self.learner.commit()

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs of loop and environments, as plain JSON values."""
        return {**self.progress.state(), **self.learner.state(), **self.source.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self.progress.restore(state)
        self.learner.restore(state)
        self.source.restore(state)
