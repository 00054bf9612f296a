"""The loop of the value-based agent with samplers: take fragments, learn as updates come due."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..agents import QLearning
from ..replay import annealed_beta
from ..runs.config import Config
from ..training import (
    CheckpointDue,
    Event,
    FiguresTaken,
    TrainingEnded,
    WorkerRestarted,
)
from ..training.rollout_loop import Games
from .backend import Arrived
from .crew import IN_FLIGHT, Crew, Replaced
from .flow import FlowFigures
from .replay import ShardedReplay

_POLL_SECONDS = 0.2


class SamplerLoop:
    """Learn from what samplers play, as many updates as their steps make due.

    Steps count the decisions that reached the replay. Two bounds hold at any time. Updates never
    run ahead of `update_every`, and samplers are asked for no more while updates of more than one
    round of fragments are due. No fragment is older than `max_staleness` updates when it arrives:
    the learner waits for those that would become so, and what is too old all the same (a sampler
    that took long to begin) is dropped.
    """

    def __init__(self, config: Config, agent: QLearning, replay: ShardedReplay, crew: Crew) -> None:
        """Take the parts; no sampler starts before `run` is iterated."""
        self.config = config
        self.agent = agent
        self.step = 0
        self.replay = replay
        self.crew = crew
        self._games = Games(config)
        self._losses: list[float] = []
        self._target_copies = 0
        self._last_checkpoint = 0
        self._flow = FlowFigures()
        self._noise: dict[str, float] = {}
        self._measure = True
        self._shard_restarts = 0
        self._stopping = False
        self._round = _updates_of_a_round(config)
        bound = config.scale.max_staleness
        self.max_staleness = default_staleness(config) if bound is None else bound

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
                # Before the updates, so that nobody waits for work meanwhile.
                self._ask()
                yield from self._learn()
                yield from self._shards()
                if self._checkpoint_due():
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

    def _checkpoint_due(self) -> bool:
        since = self.step - self._last_checkpoint
        return since >= self.config.training.checkpoint_every or self.replay.must_commit

    # Samplers

    @property
    def _due(self) -> int:
        """Updates that the steps so far have made due."""
        return self.agent.schedule.updates_due(self.step)

    def _ask(self) -> None:
        """Ask every sampler for what it may be asked for."""
        if self._due - self.agent.updates > self._round:
            return
        for member in self.crew.members:
            while self.crew.may_ask(member):
                self.crew.ask(
                    member,
                    step=self.step,
                    version=self.agent.updates,
                    oldest=self.agent.updates
                    - min(self.config.scale.weights_every - 1, self.max_staleness),
                    measure=self._measure,
                    thinned_from=self.agent.schedule.thinned_from,
                )
                self._measure = False

    def _take(self) -> Iterator[Event]:
        happened = self.crew.take(_POLL_SECONDS)
        if isinstance(happened, Replaced):
            self.replay.leave_out(happened.sampler)
            yield WorkerRestarted(
                step=self.step,
                worker=happened.sampler,
                reason=happened.reason,
                restarts=happened.restarts + self._shard_restarts,
            )
        elif happened is not None:
            yield from self._arrived(happened)

    def _arrived(self, arrived: Arrived) -> Iterator[Event]:
        report, sampler = arrived.report, arrived.sampler
        staleness = self.agent.updates - report.version
        used = staleness <= self.max_staleness and self.replay.insert(
            sampler, arrived.life, report.number, arrived.parcel
        )
        if not used:
            self._flow.lost += 1
            return
        before, self.step = self.step, self.step + report.steps
        self._flow.arrived(report, staleness)
        if report.noise:
            self._noise = report.noise
        environments = self.config.environment.environments
        for steps, game in report.games:
            environment = sampler * environments + game.environment
            self.agent.schedule.game_finished(self.step, game.reward_sum)
            yield self._games.finished(before + steps, environment, game)

    def _shards(self) -> Iterator[Event]:
        """Tell of shards that died and came back."""
        while self.replay.restarted:
            restarted = self.replay.restarted.pop(0)
            self._shard_restarts += 1
            yield WorkerRestarted(
                step=self.step,
                worker=len(self.crew.members) + restarted.shard,
                reason=f"replay shard {restarted.shard}: {restarted.reason}",
                restarts=self.crew.restarts + self._shard_restarts,
            )

    # Learning

    def _may_update(self) -> bool:
        """Tell whether no fragment on its way would become too old by one more update."""
        oldest = self.crew.oldest
        return oldest is None or self.agent.updates + 1 - oldest <= self.max_staleness

    def _learn(self) -> Iterator[Event]:
        """Do the updates that are due, and copy the target net when its time has come."""
        learning, agent = self.config.learning, self.agent
        while agent.updates < self._due and self._may_update():
            sampled = self.replay.sample(learning.batch_size, learning.discount, self._beta())
            if sampled is None:
                return
            learned = agent.update(sampled.batch)
            if learning.prioritised:
                self.replay.update_priorities(sampled, learned.errors)
            self._losses.append(learned.loss)
            due = agent.schedule.steps_due(agent.updates)
            if due // learning.target_every > self._target_copies:
                agent.copy_to_target()
                self._target_copies = due // learning.target_every
            if agent.updates % self.config.training.log_every == 0:
                yield self._figures()

    def _beta(self) -> float | None:
        learning = self.config.learning
        if not learning.prioritised:
            return None
        return annealed_beta(learning.priority_beta, self.step, self.config.training.steps)

    def _figures(self) -> FiguresTaken:
        figures = {"loss": float(np.mean(self._losses)), "updates": float(self.agent.updates)}
        self._losses.clear()
        epsilon = self.agent.epsilon(self.step)
        if epsilon is not None:
            figures["epsilon"] = epsilon
        figures |= {**self.agent.figures(), **self._noise}
        since_warmup = self.step - self.config.learning.warmup_steps
        figures |= self._flow.taken(self.crew, self.agent.updates / max(since_warmup, 1))
        self._measure = True
        return FiguresTaken(step=self.step, figures=figures)

    # Saving

    def state(self) -> dict[str, Any]:
        """Give everything of the loop that a resumed run needs; games in flight are not of it."""
        return {
            "step": self.step,
            **self._games.state(),
            "losses": list(self._losses),
            "target_copies": self._target_copies,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave; every game starts anew."""
        self.step = self._last_checkpoint = int(state["step"])
        self._games.restore(state)
        self._losses = [float(value) for value in state["losses"]]
        self._target_copies = int(state["target_copies"])


def _updates_of_a_round(config: Config) -> int:
    """Count the updates that one fragment of every sampler makes due, at least one."""
    steps = config.scale.fragment_steps * config.environment.environments
    return max((config.scale.actors or 1) * steps // config.learning.update_every, 1)


def default_staleness(config: Config) -> int:
    """Give a bound that binds no sampler which keeps pace: what is in flight, and a round more."""
    rounds = (IN_FLIGHT + 2) * _updates_of_a_round(config)
    return rounds + config.scale.weights_every
