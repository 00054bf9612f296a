"""The interface to samplers, wherever they run, and samplers in this process."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol

from .messages import Assignment, Fragment, Order, Report, Weights
from .sampler import Sampler, build_sampler


@dataclass(frozen=True)
class Arrived:
    """The arrival of a fragment: its report, and the parcel that holds the fragment."""

    sampler: int
    life: int
    report: Report
    parcel: Any
    """What `Samplers.open` turns into the fragment, which may be on another machine."""


@dataclass(frozen=True)
class Lost:
    """The death of a sampler, by which every fragment that it was asked for is lost."""

    sampler: int
    life: int
    reason: str
    diverged: bool = False
    """Whether its policy became NaN, as that of a replacement would."""


class ParcelLost(Exception):
    """A fragment was lost, for instance with the machine that held it."""


class Samplers(Protocol):
    """Numbered samplers, each of which plays the fragments that it is asked for in order."""

    def publish(self, weights: Weights) -> Any:
        """Put weights where samplers can fetch them; return the handle that `ask` accepts."""
        ...

    def start(self, assignment: Assignment) -> None:
        """Start a sampler, in place of the one that had its number before."""
        ...

    def ask(self, sampler: int, order: Order, weights: Any | None) -> None:
        """Ask for a fragment; `weights` are published ones, or None if the sampler has them."""
        ...

    def take(self, timeout: float) -> Arrived | Lost | None:
        """Return the next event; None if there is none for `timeout` seconds."""
        ...

    def open(self, parcel: Any) -> Fragment:
        """Fetch a fragment. Raises ParcelLost if it is gone."""
        ...

    def close(self) -> None:
        """End every sampler."""
        ...


class InProcessSamplers:
    """Samplers in this process, for tests and for machines without Ray.

    Each `take` plays one fragment, in the order in which they were asked for, so that a run repeats
    exactly.
    """

    def __init__(self) -> None:
        """Begin without samplers."""
        self._samplers: dict[int, Sampler] = {}
        self._asked: deque[tuple[int, Order, Weights | None]] = deque()

    def publish(self, weights: Weights) -> Weights:
        """Return the weights themselves."""
        return weights

    def start(self, assignment: Assignment) -> None:
        """Build a sampler."""
        self._samplers[assignment.number] = build_sampler(assignment)

    def ask(self, sampler: int, order: Order, weights: Weights | None) -> None:
        """Queue the order for `take`."""
        self._asked.append((sampler, order, weights))

    def take(self, timeout: float) -> Arrived | None:  # noqa: ARG002 - nothing is waited for
        """Play the oldest order. Raises whatever the environments raise."""
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
