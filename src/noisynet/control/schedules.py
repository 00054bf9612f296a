"""Schedules of the scale: pure functions of the step, applied by `scale(net, schedule(step))`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from .scale import checked_number

Schedule = Callable[[int], float]
"""A function from a step, counted as the caller counts, to the scale at that step."""


@dataclass(frozen=True)
class Constant:
    """A constant scale. Raises ValueError unless it is a finite number of at least 0."""

    value: float

    def __post_init__(self) -> None:
        checked_number("value", self.value)

    @property
    def words(self) -> str:
        """Return a short description of the schedule, for people to read."""
        return f"a constant scale of {self.value:g}"

    def __call__(self, step: int) -> float:  # noqa: ARG002 - as all schedules
        """Return the scale at a step."""
        return self.value


@dataclass(frozen=True)
class _Ramp:
    start: float
    """The scale until step `begin`."""
    end: float
    """The scale from step `until` on."""
    until: int
    begin: int = 0

    def __post_init__(self) -> None:
        checked_number("start", self.start)
        checked_number("end", self.end)
        for name, step in (("begin", self.begin), ("until", self.until)):
            if isinstance(step, bool) or not isinstance(step, int) or step < 0:
                raise ValueError(
                    f"{name}: got {step!r}, expected a step: a whole number of at least 0"
                )
        if self.until <= self.begin:
            raise ValueError(f"until: got {self.until}, expected a step after begin ({self.begin})")

    @property
    def words(self) -> str:
        """Return a short description of the schedule, for people to read."""
        kind = type(self).__name__.lower()
        steps = f"steps {self.begin:,} to {self.until:,}"
        return f"{kind} schedule, {self.start:g} to {self.end:g} over {steps}"

    def _share(self, step: int) -> float:
        """Return the fraction of the way from `begin` to `until` at a step, from 0 to 1."""
        return min(max((step - self.begin) / (self.until - self.begin), 0.0), 1.0)


@dataclass(frozen=True)
class Linear(_Ramp):
    """A scale that goes linearly from `start` to `end`, from step `begin` to step `until`.

    Raises ValueError for a scale that is negative or not finite, and if `until` is not after
    `begin`.
    """

    def __call__(self, step: int) -> float:
        """Return the scale at a step."""
        return self.start + (self.end - self.start) * self._share(step)


@dataclass(frozen=True)
class Cosine(_Ramp):
    """A scale that goes from `start` to `end` along half a cosine: slowly at first and at last.

    Raises ValueError as `Linear` does.
    """

    def __call__(self, step: int) -> float:
        """Return the scale at a step."""
        rest = 0.5 * (1 + math.cos(math.pi * self._share(step)))
        return self.end + (self.start - self.end) * rest


@dataclass(frozen=True)
class Exponential(_Ramp):
    """A scale that changes by the same factor in equal numbers of steps.

    It is start · (end/start)^((k - 1)/(K - 1)) in the k-th of K equal `stages`, as in QeRL
    (arXiv 2510.11696, eq. 8); without stages, the exponent grows linearly from 0 to 1. Raises
    ValueError as `Linear` does, for a `start` or `end` of 0, and for fewer than two stages.
    """

    stages: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_number("start", self.start, above=True)
        checked_number("end", self.end, above=True)
        stages = self.stages
        if stages is not None and (
            isinstance(stages, bool) or not isinstance(stages, int) or stages < 2
        ):
            raise ValueError(f"stages: got {stages!r}, expected a whole number of at least 2")

    def __call__(self, step: int) -> float:
        """Return the scale at a step."""
        share = self._share(step)
        if self.stages is not None:
            # In whole numbers: share · stages, when rounded, may fall just short of a new stage.
            stage = max(step - self.begin, 0) * self.stages // (self.until - self.begin)
            share = min(stage, self.stages - 1) / (self.stages - 1)
        return self.start * (self.end / self.start) ** share
