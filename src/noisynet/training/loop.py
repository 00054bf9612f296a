"""The training loop: a source plays, a learner learns from it, events say what happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from ..agents import Agent
from .events import CheckpointDue, Event, FiguresTaken, GameFinished, TrainingEnded
from .progress import Progress
from .sources import ReplaySource, Source

Experience = TypeVar("Experience", contravariant=True)


class Learner(Protocol[Experience]):
    """What learns from a source's experience: `ReplayLearner` or `RolloutLearner`."""

    @property
    def agent(self) -> Agent:
        """What is trained."""
        ...

    @property
    def must_commit(self) -> bool:
        """Whether a checkpoint is needed now."""
        ...

    def game_finished(self, step: int, game_return: float) -> None:
        """Take note of a game that ended while the run was at an agent step."""
        ...

    def learn(
        self, progress: Progress, experience: Experience | None, may_update: Callable[[], bool]
    ) -> Iterator[Event]:
        """Take the updates that are due."""
        ...

    def commit(self) -> dict[str, Any]:
        """Bring to the disk what does not stand in a checkpoint; return what refers to it."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain JSON values."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        ...


class TrainingLoop:
    """Trains an agent: plays, learns, plays again, until the run is over.

    It yields events; everything else listens. `progress.stop()` ends it after what is being played.
    """

    def __init__(self, progress: Progress, source: Source[Any], learner: Learner[Any]) -> None:
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
                yield from self._advance()
                if self.progress.checkpoint_due(needed=self.learner.must_commit):
                    yield CheckpointDue(step=self.progress.step)
        finally:
            self.source.close()
        yield TrainingEnded(step=self.progress.step, reason=reason)

    def _advance(self) -> Iterator[Event]:
        if isinstance(self.source, ReplaySource) and self.source.overlaps:
            yield from self._noted(self.source.play_beside(self.progress, self._learn(None)))
            return
        experience = yield from self._noted(self.source.play(self.progress))
        yield from self._learn(experience)

    def _noted(self, events: Any) -> Any:
        """Let the learner know of games that end; return what the events' generator returns."""
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                return end.value
            if isinstance(event, GameFinished):
                self.learner.game_finished(self.progress.step, event.game_return)
            yield event

    def _learn(self, experience: Any) -> Iterator[Event]:
        """Take the updates that are due; their figures get those of the source beside them."""
        for event in self.learner.learn(self.progress, experience, self.source.may_update):
            if isinstance(event, FiguresTaken):
                figures = event.figures | self.source.figures(self.progress)
                yield replace(event, figures=figures)
            else:
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
