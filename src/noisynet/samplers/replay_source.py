"""The source of fragments that samplers play into a replay, with limits on their age."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

from ..agents import QLearning
from ..training import Event, Progress, UpdateSchedule, WorkerRestarted
from ..training.loop import Source
from .backend import Arrived
from .crew import IN_FLIGHT, Crew, Replaced
from .flow import FlowFigures
from .sharded_replay import ShardedReplay


class SampledReplaySource(Source[None]):
    """A source that asks samplers for fragments and inserts them into a replay.

    Steps are counted when they reach the replay. Two bounds hold at any time. First, updates never
    run ahead of the schedule, and once the replay can be drawn from, samplers are asked for nothing
    while more updates are due than one round of fragments brings. Second, the weights behind a
    fragment are at most `max_staleness` updates old when it arrives: the learner waits for
    fragments that would become older, and drops those that are older all the same, because their
    sampler took long to start.

    Args:
        agent: the agent that learns; its updates say how old weights are.
        replay: the replay that takes the fragments.
        crew: the samplers.
        schedule: schedule of the agent's updates.
        n_step: steps of a transition that the agent learns from.
        environments: number of environments of each sampler.
        fragment_steps: steps of each environment in a fragment.
        weights_every: least number of updates between two publications of the weights.
        max_staleness: None: a bound that affects no sampler that keeps pace.
    """

    def __init__(
        self,
        agent: QLearning,
        replay: ShardedReplay,
        crew: Crew,
        schedule: UpdateSchedule,
        *,
        n_step: int,
        environments: int,
        fragment_steps: int,
        weights_every: int,
        max_staleness: int | None = None,
    ) -> None:
        self.agent = agent
        self.replay = replay
        self.crew = crew
        self._schedule = schedule
        self._n_step = n_step
        self._environments = environments
        # Updates that one fragment of every sampler makes due, at least one.
        steps = len(crew.members) * fragment_steps * environments
        self._round = max(steps // schedule.update_every, 1)
        if max_staleness is None:
            # The fragments in flight, and two rounds more.
            max_staleness = (IN_FLIGHT + 2) * self._round + weights_every
        self.max_staleness = max_staleness
        self._newer_than = min(weights_every - 1, max_staleness)
        self._flow = FlowFigures()
        self._noise: dict[str, float] = {}
        self._measure = True
        self._shard_restarts = 0

    def play(self, progress: Progress) -> Generator[Event, None, None]:
        """Take what arrives next; before and after, ask samplers for more."""
        self.crew.start()
        yield from self._restarted_shards(progress)
        self._ask(progress)
        yield from self._take(progress)
        # Before the updates that follow, so that no sampler is idle during them.
        self._ask(progress)

    def advance(
        self, progress: Progress, learn: Callable[[None], Iterator[Event]]
    ) -> Iterator[Event]:
        """Take what arrives next and learn; report shards that died, even in the last round."""
        yield from super().advance(progress, learn)
        yield from self._restarted_shards(progress)

    def may_update(self) -> bool:
        """Return whether one more update would make no fragment in flight too old."""
        oldest = self.crew.oldest
        return oldest is None or self.agent.updates + 1 - oldest <= self.max_staleness

    def _ask(self, progress: Progress) -> None:
        """Ask every sampler for as many fragments as it may be asked for."""
        behind = self._schedule.updates_due(progress.step) - self.agent.updates > self._round
        # Updates that lack a whole transition are taken only after more fragments.
        if behind and self.replay.can_sample(self._n_step):
            return
        for member in self.crew.members:
            while self.crew.may_ask(member):
                self.crew.ask(
                    member,
                    step=progress.step,
                    version=self.agent.updates,
                    oldest=self.agent.updates - self._newer_than,
                    measure=self._measure,
                )
                self._measure = False

    def _take(self, progress: Progress) -> Iterator[Event]:
        happened = self.crew.take()
        if isinstance(happened, Replaced):
            self._flow.lost += happened.lost
            self.replay.leave_out(happened.sampler)
            yield WorkerRestarted(
                step=progress.step,
                worker=happened.sampler,
                reason=happened.reason,
                restarts=happened.restarts + self._shard_restarts,
            )
        elif happened is not None:
            yield from self._arrived(progress, happened)

    def _arrived(self, progress: Progress, arrived: Arrived) -> Iterator[Event]:
        report, sampler = arrived.report, arrived.sampler
        staleness = self.agent.updates - report.version
        used = staleness <= self.max_staleness and self.replay.insert(
            sampler, arrived.life, report.number, arrived.parcel
        )
        if not used:
            self._flow.lost += 1
            return
        before, progress.step = progress.step, progress.step + report.steps
        self._flow.arrived(report, staleness)
        if report.noise:
            self._noise = report.noise
        for steps, game in report.games:
            environment = sampler * self._environments + game.environment
            yield progress.finished(before + steps, environment, game)

    def _restarted_shards(self, progress: Progress) -> Iterator[Event]:
        """Report shards that died and were restored, even while a checkpoint was written."""
        while self.replay.restarted:
            restarted = self.replay.restarted.pop(0)
            self._shard_restarts += 1
            yield WorkerRestarted(
                step=progress.step,
                worker=len(self.crew.members) + restarted.shard,
                reason=f"replay shard {restarted.shard}: {restarted.reason}",
                restarts=self.crew.restarts + self._shard_restarts,
            )

    def figures(self, progress: Progress) -> dict[str, float]:
        """Return the samplers' latest figures of the noise, and the flow since the last call."""
        self._measure = True
        since_warmup = max(progress.step - self._schedule.warmup_steps, 1)
        return {**self._noise, **self._flow.taken(self.crew, self.agent.updates / since_warmup)}

    def close(self) -> None:
        """End the samplers; the fragments that they are playing are dropped."""
        self.crew.close()
