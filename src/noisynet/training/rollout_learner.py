"""The learner of the actor-critic, which takes one update from each rollout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..agents import ActorCritic, RolloutLearned, StepSize, ValuesLearned
from .events import Event
from .loop import Learner
from .progress import Progress
from .sources import RolloutExperience


def means(learned: Sequence[RolloutLearned | ValuesLearned]) -> dict[str, float]:
    """Return the mean of each figure over some updates."""
    every = [asdict(one) for one in learned]
    return {name: float(np.mean([one[name] for one in every])) for name in every[0]}


class RolloutLearner(Learner[ActorCritic, RolloutExperience]):
    """A learner that takes one update of an actor-critic from each rollout.

    `step_size` is a schedule by agent steps; None: the optimizer's step size. `log_every` is the
    number of updates between events with figures.
    """

    def __init__(
        self, agent: ActorCritic, *, step_size: StepSize | None = None, log_every: int = 100
    ) -> None:
        self.agent = agent
        self._step_size = step_size
        self._log_every = log_every
        self._learned: list[RolloutLearned] = []

    def learn(
        self,
        progress: Progress,
        experience: RolloutExperience | None,
        may_update: Callable[[], bool],  # noqa: ARG002 - a rollout that is there is learned from
    ) -> Iterator[Event]:
        """Take one update if there is a rollout."""
        if experience is None:
            return
        size = None if self._step_size is None else self._step_size(experience.step)
        self._learned.append(self.agent.update(experience.rollout, size))
        if self.agent.updates % self._log_every == 0:
            figures = means(self._learned)
            self._learned.clear()
            yield self._figures_taken(progress, figures)

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain JSON values."""
        return {"learned": [asdict(one) for one in self._learned]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self._learned = [RolloutLearned(**one) for one in state["learned"]]
