"""Where samplers live: the interface that the loops speak, and samplers in this very process."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol

from .messages import Assignment, Fragment, Order, Report, Weights
from .sampler import Sampler, build_sampler


@dataclass(frozen=True)
class Arrived:
    """A fragment is there: its report, and where the fragment itself can be had."""

    sampler: int
    life: int
    report: Report
    parcel: Any
    """What `Samplers.open` turns into the fragment; it may lie on another machine."""


@dataclass(frozen=True)
class Lost:
    """A sampler died, with every fragment that it was asked for."""

    sampler: int
    life: int
    reason: str
    diverged: bool = False
    """Its policy became NaN: no other sampler would fare better."""


class ParcelLost(Exception):
    """A fragment that went down with the machine that held it."""


class Samplers(Protocol):
    """Samplers by their numbers, each of which plays what it is asked for, in that order."""

    def publish(self, weights: Weights) -> Any:
        """Put weights where samplers can fetch them; return what `ask` takes."""
        ...

    def start(self, assignment: Assignment) -> None:
        """Start a sampler, in the place of the one that had its number."""
        ...

    def ask(self, sampler: int, order: Order, weights: Any | None) -> None:
        """Ask for a fragment, under published weights where they are new to this sampler."""
        ...

    def take(self, timeout: float) -> Arrived | Lost | None:
        """Return what happened next; None where nothing does for `timeout` seconds."""
        ...

    def open(self, parcel: Any) -> Fragment:
        """Fetch a fragment. Raises ParcelLost."""
        ...

    def close(self) -> None:
        """End every sampler."""
        ...


class InProcessSamplers:
    """Samplers in this process, for tests and for machines without Ray.

    A fragment is played when it is waited for, in the order in which they were asked for: a fixed
    hand-off, so that a run repeats exactly.
    """

    def __init__(self) -> None:
        """Begin without any."""
        self._samplers: dict[int, Sampler] = {}
        self._asked: deque[tuple[int, Order, Weights | None]] = deque()

    def publish(self, weights: Weights) -> Weights:
        """Return the weights themselves."""
        return weights

    def start(self, assignment: Assignment) -> None:
        """Build a sampler."""
        self._samplers[assignment.number] = build_sampler(assignment)

    def ask(self, sampler: int, order: Order, weights: Weights | None) -> None:
        """Remember what was asked for."""
        self._asked.append((sampler, order, weights))

    def take(self, timeout: float) -> Arrived | None:  # noqa: ARG002 - nothing is waited for
        """Play what was asked for first. Raises whatever the environments do."""
        if not self._asked:
            return None
        number, order, weights = self._asked.popleft()
        sampler = self._samplers[number]
        report, fragment = sampler.play(order, weights)
        return Arrived(number, sampler.assignment.life, report, fragment)

    def open(self, parcel: Fragment) -> Fragment:
        """Return the fragment itself."""
        return parcel

    def close(self) -> None:
        """Close the environments."""
        for sampler in self._samplers.values():
            sampler.close()
        self._samplers.clear()
        self._asked.clear()
