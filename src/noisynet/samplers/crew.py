"""The samplers of a run: who was asked for what, under which weights, and who died."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..agents import LossNotFinite
from ..training import WorkersFailed
from .backend import Arrived, Lost, Samplers
from .messages import Assignment, Order, Weights

IN_FLIGHT = 2
"""Fragments that a sampler of a replay is asked for at a time: it plays one while one travels."""

AHEAD = 4
"""Fragments that a sampler may be ahead of the slowest one that plays."""

_BARREN_LIVES = 5
_PATIENCE_SECONDS = 600.0


@dataclass
class Member:
    """One sampler, as the learner sees it."""

    number: int
    life: int = 0
    in_flight: deque[int] = field(default_factory=deque)
    """Versions of the weights behind the fragments that it was asked for."""
    place: int = 0
    """Fragments that it has given, or would have: how far it is in the run."""
    playing: bool = True
    """False from its death until its successor's first fragment."""
    delivered: int = 0
    """Fragments of this life."""
    barren: int = 0
    """Lives, one after the other up to now, that ended without a fragment."""
    knows: int | None = None
    """Version of the weights that it was sent last."""


@dataclass(frozen=True)
class Replaced:
    """A sampler died, and another one is being started in its place."""

    sampler: int
    reason: str
    restarts: int


class Crew:
    """The samplers of a run, kept at work.

    A sampler that dies is replaced by one with another seed: games and noise of its own, from new
    games on. What it was asked for is forgotten, and never inserted. Weights travel by version: a
    sampler is sent those that it does not have.
    """

    def __init__(
        self,
        samplers: Samplers,
        assignment: Callable[[int, int], Assignment],
        actors: int,
        weights: Callable[[], Weights],
    ) -> None:
        """Take the backend; `assignment` is asked for a number and a life. Nothing starts yet."""
        self.samplers = samplers
        self._assignment = assignment
        self._weights = weights
        self.members = [Member(number) for number in range(actors)]
        self.restarts = 0
        self.weight_bytes = 0
        """Bytes of weights that samplers were sent, so far."""
        self._published: tuple[int, Any, int] | None = None
        self._started = False
        self._last_sign = time.monotonic()

    def start(self) -> None:
        """Start every sampler, if that has not been done."""
        if self._started:
            return
        self._started = True
        for member in self.members:
            self.samplers.start(self._assignment(member.number, member.life))
        self._last_sign = time.monotonic()

    def close(self) -> None:
        """End every sampler."""
        self.samplers.close()

    @property
    def oldest(self) -> int | None:
        """Version of the oldest weights behind fragments of samplers that play; None: no such."""
        return min((one.in_flight[0] for one in self.members if self._binds(one)), default=None)

    def _binds(self, member: Member) -> bool:
        # What a sampler that has yet to begin was asked for binds nobody: it may take minutes.
        return bool(member.in_flight) and member.playing and member.delivered > 0

    def may_ask(self, member: Member) -> bool:
        """Return whether a sampler of a replay is to be asked for one more fragment."""
        if member.delivered == 0:
            return not member.in_flight
        slowest = min(one.place for one in self.members if one.playing)
        ahead = member.place + len(member.in_flight) - slowest
        return len(member.in_flight) < IN_FLIGHT and ahead < AHEAD

    def ask(
        self, member: Member, *, step: int, version: int, oldest: int, measure: bool = False
    ) -> None:
        """Ask for a fragment under weights of `oldest` or newer; `version` are the learner's."""
        if self._published is None or self._published[0] < oldest:
            weights = self._weights()
            size = sum(array.nbytes for array in weights.values())
            self._published = version, self.samplers.publish(weights), size
        published, handle, size = self._published
        new = member.knows != published
        order = Order(step=step, version=published, measure=measure)
        self.samplers.ask(member.number, order, handle if new else None)
        self.weight_bytes += size if new else 0
        member.knows = published
        member.in_flight.append(published)

    def take(self, timeout: float) -> Arrived | Replaced | None:
        """Return the next fragment, or the death of a sampler; None where nothing happens.

        Raises LossNotFinite where a sampler's policy is NaN, and WorkersFailed where one dies again
        and again before its first fragment, or none answers for ten minutes.
        """
        happened = self.samplers.take(timeout)
        if happened is None:
            waited = time.monotonic() - self._last_sign
            if waited > _PATIENCE_SECONDS and any(one.in_flight for one in self.members):
                raise WorkersFailed(f"no sampler has answered for {waited:.0f} seconds")
            return None
        self._last_sign = time.monotonic()
        member = self.members[happened.sampler]
        if happened.life != member.life:
            return None
        if isinstance(happened, Lost):
            return self._replace(member, happened)
        member.in_flight.popleft()
        if not member.playing:
            member.playing = True
            others = [one.place for one in self.members if one.playing and one is not member]
            member.place = min(others, default=member.place)
        member.place += 1
        member.delivered += 1
        return happened

    def _replace(self, member: Member, lost: Lost) -> Replaced:
        if lost.diverged:
            raise LossNotFinite(f"{lost.reason}, said sampler {member.number}")
        barren = 0 if member.delivered else member.barren + 1
        if barren >= _BARREN_LIVES:
            raise WorkersFailed(
                f"sampler {member.number} died {barren} times in a row before its first fragment: "
                f"{lost.reason}"
            )
        successor = Member(
            member.number, member.life + 1, place=member.place, playing=False, barren=barren
        )
        self.members[member.number] = successor
        self.restarts += 1
        self.samplers.start(self._assignment(successor.number, successor.life))
        return Replaced(member.number, lost.reason, self.restarts)
