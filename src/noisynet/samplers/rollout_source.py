"""The source of rollouts that samplers play: one rollout of each sampler, joined."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..agents import ActorCritic, ParallelQLearning, Rollout
from ..layers import Draw, hold
from ..training import Event, Progress, WorkerRestarted
from ..training.loop import Source
from ..training.sources import RolloutExperience
from .backend import Arrived, ParcelLost
from .crew import Crew, Replaced
from .flow import FlowFigures
from .messages import Report, RolloutFragment, restacked


@dataclass(frozen=True)
class _Played:
    sampler: int
    report: Report
    fragment: RolloutFragment


class SampledRolloutSource(Source[RolloutExperience]):
    """A source that joins the rollouts of samplers, one of each, into one rollout to learn from.

    It is learned under the draws that acted. With `max_staleness` 0, samplers play under the newest
    weights and wait while the agent learns, as if all environments were in one process; with s,
    they play s rollouts ahead, under weights that are s rollouts old. A sampler that died is not
    waited for until its successor has sent a rollout.

    Args:
        agent: the agent to train; its network holds the draws that acted, one per environment.
        crew: the samplers.
        environments: number of environments of each sampler.
        stack: frames in an observation.
        max_staleness: largest age of the weights behind a rollout that is used, in rollouts.
    """

    def __init__(
        self,
        agent: ActorCritic | ParallelQLearning,
        crew: Crew,
        *,
        environments: int,
        stack: int,
        max_staleness: int = 0,
    ) -> None:
        self.agent = agent
        self.crew = crew
        self.max_staleness = max_staleness
        self._environments = environments
        self._stack = stack
        self._queues: dict[int, deque[_Played]] = {
            member.number: deque() for member in crew.members
        }
        # Versions of the weights are counted by rollouts, each of which is one or more updates.
        self._version = agent.updates
        self._flow = FlowFigures()
        self._noise: dict[str, float] = {}
        self._measure = True

    def play(self, progress: Progress) -> Generator[Event, None, RolloutExperience | None]:
        """Take what arrives next; return a joined rollout when all playing samplers sent one."""
        self.crew.start()
        self._ask(progress)
        yield from self._take(progress)
        if not self._round_complete():
            return None
        return (yield from self._join(progress))

    def _ask(self, progress: Progress) -> None:
        """Ask every sampler for one rollout and as many more as it may be ahead."""
        for member in self.crew.members:
            # A replacement may take minutes to start: it is asked for one rollout until that comes.
            most = self.max_staleness + 1 if member.delivered or member.life == 0 else 1
            while len(member.in_flight) + len(self._queues[member.number]) < most:
                self.crew.ask(
                    member,
                    step=progress.step,
                    version=self._version,
                    oldest=self._version,
                    measure=self._measure,
                )
                self._measure = False

    def _take(self, progress: Progress) -> Iterator[Event]:
        happened = self.crew.take()
        if isinstance(happened, Replaced):
            queue = self._queues[happened.sampler]
            self._flow.lost += happened.lost + len(queue)
            queue.clear()
            yield WorkerRestarted(
                step=progress.step,
                worker=happened.sampler,
                reason=happened.reason,
                restarts=happened.restarts,
            )
        elif happened is not None:
            self._arrived(happened)

    def _arrived(self, arrived: Arrived) -> None:
        report = arrived.report
        if self._version - report.version > self.max_staleness:
            # Its sampler took long to start; the next rollout will be in time.
            self._flow.lost += 1
            return
        try:
            fragment = self.crew.samplers.open(arrived.parcel)
        except ParcelLost:
            self._flow.lost += 1
            return
        assert isinstance(fragment, RolloutFragment), "these samplers play rollouts"
        self._queues[arrived.sampler].append(_Played(arrived.sampler, report, fragment))

    def _round_complete(self) -> bool:
        """Return whether every playing sampler has sent a rollout."""
        waited_for = [member.number for member in self.crew.members if member.playing]
        return bool(waited_for) and all(self._queues[number] for number in waited_for)

    def _join(self, progress: Progress) -> Generator[Event, None, RolloutExperience]:
        """Join the oldest rollout of each sampler, and hold the draws that acted in them."""
        round_ = [queue.popleft() for queue in self._queues.values() if queue]
        before = progress.step
        for played in round_:
            report = played.report
            self._flow.arrived(report, self._version - report.version)
            if report.noise:
                self._noise = report.noise
            for steps, game in report.games:
                environment = played.sampler * self._environments + game.environment
                yield progress.finished(progress.step + steps, environment, game)
            progress.step += report.steps
        self._version += 1
        fragments = [played.fragment for played in round_]
        drawn = [one.drawn for one in fragments if one.drawn is not None]
        if drawn:
            together = joined_draws(drawn, self._environments)
            hold(self.agent.network, drawn=together.to(self.agent.device))
        return RolloutExperience(joined(fragments, self._stack), before)

    def figures(self, progress: Progress) -> dict[str, float]:
        """Return the samplers' latest figures of the noise, and the flow since the last call."""
        self._measure = True
        flow = self._flow.taken(self.crew, self.agent.updates / max(progress.step, 1))
        return {**self._noise, **flow}

    def close(self) -> None:
        """End the samplers; the rollouts that they are playing are dropped."""
        self.crew.close()


def joined(fragments: Sequence[RolloutFragment], stack: int) -> Rollout:
    """Join fragments along the environment dimension into one rollout."""
    observation = [restacked(one.opening, one.frame, one.first, stack) for one in fragments]
    of_steps = {
        name: np.concatenate([getattr(one, name) for one in fragments], axis=1)
        for name in ("first", "action_t", "reward_t", "discount_t", "goes_on_t", "taken_t")
    }
    return Rollout(observation=np.concatenate(observation, axis=1), **of_steps)


def joined_draws(drawn: Sequence[Draw], environments: int) -> Draw:
    """Concatenate draws, with a row for each environment; a shared draw is repeated."""
    rows = [
        one.flats if one.rows is not None else [flat.expand(environments, -1) for flat in one.flats]
        for one in drawn
    ]
    flats = tuple(torch.cat(parts) for parts in zip(*rows, strict=True))
    return replace(drawn[0], flats=flats)
