"""The samplers of a run: their orders, the weights that they are sent, their replacements."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..agents import LossNotFinite
from ..training import WorkersFailed
from .backend import Arrived, Lost, Samplers
from .messages import Assignment, Order, Weights

IN_FLIGHT = 2
"""Fragments that a replay's sampler is asked for at a time: it plays one while another travels."""

AHEAD = 4
"""Fragments that a sampler may be ahead of the slowest one that plays."""

_POLL_SECONDS = 0.2
_FRUITLESS_LIVES = 5
_PATIENCE_SECONDS = 600.0


@dataclass
class Member:
    """One sampler, as the learner sees it."""

    number: int
    life: int = 0
    in_flight: deque[int] = field(default_factory=deque)
    """Versions of the weights behind the fragments that it has yet to send."""
    place: int = 0
    """How far it is in the run, in fragments; a replacement starts level with the slowest."""
    playing: bool = True
    """False from its death until its successor's first fragment."""
    delivered: int = 0
    """Fragments that arrived from it in this life."""
    fruitless: int = 0
    """Number of consecutive lives just before this one that ended without a fragment."""
    knows: int | None = None
    """Version of the weights that it was last sent."""


@dataclass(frozen=True)
class Replaced:
    """The replacement of a dead sampler by another one, which is being started."""

    sampler: int
    reason: str
    restarts: int
    lost: int
    """Fragments that the dead one was asked for and had yet to send."""


class Crew:
    """The samplers of a run, which are asked for fragments and replaced when they die.

    A replacement has another seed: it starts new games, with noise of its own. What the dead
    sampler was asked for is dropped. Weights have versions, and a sampler is sent only weights that
    it does not have.
    """

    def __init__(
        self,
        samplers: Samplers,
        assignment: Callable[[int, int], Assignment],
        actors: int,
        weights: Callable[[], Weights],
    ) -> None:
        """Take the backend; `assignment` is called with number and life. Nothing starts yet."""
        self.samplers = samplers
        self._assignment = assignment
        self._weights = weights
        self.members = [Member(number) for number in range(actors)]
        self.restarts = 0
        self.weight_bytes = 0
        """Bytes of weights sent to samplers so far."""
        self._published: tuple[int, Any, int] | None = None
        self._started = False
        self._waited = 0.0
        """Seconds of waiting for an answer since the last one."""

    def start(self) -> None:
        """Start every sampler, unless that has been done."""
        if self._started:
            return
        self._started = True
        for member in self.members:
            self.samplers.start(self._assignment(member.number, member.life))

    def close(self) -> None:
        """End every sampler."""
        self.samplers.close()

    @property
    def oldest(self) -> int | None:
        """Version of the oldest weights behind fragments that playing samplers have yet to send."""
        return min((one.in_flight[0] for one in self.members if self._binds(one)), default=None)

    def _binds(self, member: Member) -> bool:
        # Nobody waits for the first fragment of a sampler: starting may take it minutes.
        return bool(member.in_flight) and member.playing and member.delivered > 0

    def may_ask(self, member: Member) -> bool:
        """Return whether a replay's sampler should be asked for one more fragment."""
        if member.delivered == 0:
            return not member.in_flight
        slowest = min(one.place for one in self.members if one.playing)
        ahead = member.place + len(member.in_flight) - slowest
        return len(member.in_flight) < IN_FLIGHT and ahead < AHEAD

    def ask(
        self, member: Member, *, step: int, version: int, oldest: int, measure: bool = False
    ) -> None:
        """Ask for a fragment under weights of version `oldest` or newer.

        If those published last are older, the learner's own, of version `version`, are published.
        """
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

    def take(self) -> Arrived | Replaced | None:
        """Return the next fragment, or the replacement of a sampler; None if nothing happens soon.

        Raises LossNotFinite if a sampler's policy is NaN, and WorkersFailed if one dies repeatedly
        before its first fragment, or none answers for ten minutes.
        """
        happened = self.samplers.take(_POLL_SECONDS)
        if happened is None:
            # Not by the clock: the learner may have learned, or been stopped, in the meantime.
            self._waited += _POLL_SECONDS if any(one.in_flight for one in self.members) else 0.0
            if self._waited > _PATIENCE_SECONDS:
                raise WorkersFailed(f"no sampler has answered for {self._waited:.0f} seconds")
            return None
        self._waited = 0.0
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
        fruitless = 0 if member.delivered else member.fruitless + 1
        if fruitless >= _FRUITLESS_LIVES:
            raise WorkersFailed(
                f"sampler {member.number} died {fruitless} times in a row before its first "
                f"fragment: {lost.reason}"
            )
        successor = Member(
            member.number,
            member.life + 1,
            place=member.place,
            playing=False,
            fruitless=fruitless,
        )
        self.members[member.number] = successor
        self.restarts += 1
        self.samplers.start(self._assignment(successor.number, successor.life))
        return Replaced(member.number, lost.reason, self.restarts, lost=len(member.in_flight))
