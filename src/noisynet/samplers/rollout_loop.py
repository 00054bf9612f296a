"""The loop of the actor-critic with samplers: a rollout of each, one update from all of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from ..agents import ActorCritic, Rollout, RolloutLearned
from ..layers import Draw, hold
from ..runs.config import Config
from ..training import (
    CheckpointDue,
    Event,
    FiguresTaken,
    TrainingEnded,
    WorkerRestarted,
)
from ..training.rollout_loop import Games, means
from .backend import Arrived, ParcelLost
from .crew import Crew, Replaced
from .flow import FlowFigures
from .messages import Report, RolloutFragment, restacked

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class _Played:
    sampler: int
    report: Report
    fragment: RolloutFragment


class SampledRolloutLoop:
    """Train an actor-critic on rollouts that samplers play side by side.

    An update learns from one rollout of every sampler, under the draws that acted in them. With
    `max_staleness` 0 samplers play under the newest weights and wait while these are learned, which
    is A2C over more environments; with s, they play s rollouts ahead, under weights that are s
    updates old. A sampler that died is not waited for until its successor has begun.
    """

    def __init__(self, config: Config, agent: ActorCritic, crew: Crew, stack: int) -> None:
        """Take the parts; no sampler starts before `run` is iterated."""
        self.config = config
        self.agent = agent
        self.step = 0
        self.crew = crew
        self.max_staleness = config.scale.max_staleness or 0
        self._stack = stack
        self._games = Games(config)
        self._queues: dict[int, deque[_Played]] = {
            member.number: deque() for member in crew.members
        }
        self._learned: list[RolloutLearned] = []
        self._flow = FlowFigures()
        self._noise: dict[str, float] = {}
        self._measure = True
        self._last_checkpoint = 0
        self._stopping = False

    def stop(self) -> None:
        """Ask for an end; what samplers are playing is left."""
        self._stopping = True

    @property
    def mean_return(self) -> float | None:
        """Mean return of the last games, at most `solved_games`; None before the first."""
        return self._games.mean_return

    def run(self) -> Iterator[Event]:
        """Take and learn until the budget is used, the task is solved, or `stop` is called."""
        try:
            self.crew.start()
            while (reason := self._end()) is None:
                self._ask()
                yield from self._take()
                if self._round_complete():
                    yield from self._learn()
                if self.step - self._last_checkpoint >= self.config.training.checkpoint_every:
                    self._last_checkpoint = self.step
                    yield CheckpointDue(step=self.step)
        finally:
            self.crew.close()
        yield TrainingEnded(step=self.step, reason=reason)

    def _end(self) -> Any:
        if self._games.solved:
            return "solved"
        if self.step >= self.config.training.steps:
            return "steps"
        return "interrupted" if self._stopping else None

    def _ask(self) -> None:
        """Ask every sampler for as many rollouts as it may be ahead, and one."""
        for member in self.crew.members:
            # A sampler that has yet to begin may take minutes: one rollout shows that it is there.
            most = self.max_staleness + 1 if member.delivered or member.life == 0 else 1
            while len(member.in_flight) + len(self._queues[member.number]) < most:
                self.crew.ask(
                    member,
                    step=self.step,
                    version=self.agent.updates,
                    oldest=self.agent.updates,
                    measure=self._measure,
                )
                self._measure = False

    def _take(self) -> Iterator[Event]:
        happened = self.crew.take(_POLL_SECONDS)
        if isinstance(happened, Replaced):
            self._queues[happened.sampler].clear()
            yield WorkerRestarted(
                step=self.step,
                worker=happened.sampler,
                reason=happened.reason,
                restarts=happened.restarts,
            )
        elif happened is not None:
            self._arrived(happened)

    def _arrived(self, arrived: Arrived) -> None:
        report = arrived.report
        if self.agent.updates - report.version > self.max_staleness:
            # Its sampler took long to begin; the next one comes in time.
            self._flow.lost += 1
            return
        try:
            fragment = self.crew.samplers.open(arrived.parcel)
        except ParcelLost:
            self._flow.lost += 1
            return
        assert isinstance(fragment, RolloutFragment), "an actor-critic's samplers play rollouts"
        self._queues[arrived.sampler].append(_Played(arrived.sampler, report, fragment))

    def _round_complete(self) -> bool:
        """Tell whether every sampler that plays has given a rollout."""
        waited_for = [member.number for member in self.crew.members if member.playing]
        return bool(waited_for) and all(self._queues[number] for number in waited_for)

    def _learn(self) -> Iterator[Event]:
        """Take one update from the oldest rollout of each."""
        round_ = [queue.popleft() for queue in self._queues.values() if queue]
        environments = self.config.environment.environments
        before = self.step
        for played in round_:
            report = played.report
            self._flow.arrived(report, self.agent.updates - report.version)
            if report.noise:
                self._noise = report.noise
            for steps, game in report.games:
                environment = played.sampler * environments + game.environment
                yield self._games.finished(self.step + steps, environment, game)
            self.step += report.steps
        fragments = [played.fragment for played in round_]
        self._hold(fragments)
        self._learned.append(self.agent.update(joined(fragments, self._stack), before))
        if self.agent.updates % self.config.training.log_every == 0:
            yield self._figures()

    def _hold(self, fragments: Sequence[RolloutFragment]) -> None:
        """Let the learner's network have the noise that acted, in each environment its own."""
        drawn = [one.drawn for one in fragments if one.drawn is not None]
        if drawn:
            together = joined_draws(drawn, self.config.environment.environments)
            hold(self.agent.network, drawn=together.to(self.agent.device))

    def _figures(self) -> FiguresTaken:
        figures = {**means(self._learned), "updates": float(self.agent.updates)}
        self._learned.clear()
        figures |= {**self.agent.figures(), **self._noise}
        figures |= self._flow.taken(self.crew, self.agent.updates / max(self.step, 1))
        self._measure = True
        return FiguresTaken(step=self.step, figures=figures)

    def state(self) -> dict[str, Any]:
        """Give everything of the loop that a resumed run needs; games in flight are not of it."""
        return {
            "step": self.step,
            **self._games.state(),
            "learned": [asdict(one) for one in self._learned],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave; every game starts anew."""
        self.step = self._last_checkpoint = int(state["step"])
        self._games.restore(state)
        self._learned = [RolloutLearned(**one) for one in state["learned"]]


def joined(fragments: Sequence[RolloutFragment], stack: int) -> Rollout:
    """Put fragments side by side: one rollout of all their environments."""
    observation = [restacked(one.opening, one.frame, one.first, stack) for one in fragments]
    of_steps = {
        name: np.concatenate([getattr(one, name) for one in fragments], axis=1)
        for name in ("first", "action_t", "reward_t", "discount_t", "goes_on_t", "taken_t")
    }
    return Rollout(observation=np.concatenate(observation, axis=1), **of_steps)


def joined_draws(drawn: Sequence[Draw], environments: int) -> Draw:
    """Put draws below each other, a row for each environment; one that was shared is repeated."""
    rows = [
        one.flats if one.rows is not None else [flat.expand(environments, -1) for flat in one.flats]
        for one in drawn
    ]
    flats = tuple(torch.cat(parts) for parts in zip(*rows, strict=True))
    return replace(drawn[0], flats=flats)
