"""Curves of figures over training, in memory that does not grow with the run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

_BUCKETS = 256


@dataclass(frozen=True)
class Curve:
    """A figure over training, thinned to buckets of steps; every array is (buckets,)."""

    step: Numbers
    """The bucket's last step."""
    last: Numbers
    """The value at the bucket's last step."""
    low: Numbers
    high: Numbers
    low_step: Numbers
    high_step: Numbers
    first_step: int
    """The step of the first point, within the first bucket."""

    def extremes(self) -> tuple[Numbers, Numbers]:
        """Return steps and values of the lowest and highest point of each bucket, in order."""
        steps = np.stack([self.low_step, self.high_step], axis=1)
        values = np.stack([self.low, self.high], axis=1)
        order = np.argsort(steps, axis=1, kind="stable")
        steps, values = (np.take_along_axis(one, order, axis=1) for one in (steps, values))
        keep = np.ones(steps.shape, np.bool_)
        keep[:, 1] = steps[:, 1] > steps[:, 0]
        return steps[keep], values[keep]

    def at(self, step: float) -> float | None:
        """Return the last value of the latest bucket that ends by `step`; None before the first."""
        place = int(np.searchsorted(self.step, step, side="right")) - 1
        return None if place < 0 else float(self.last[place])

    def on(self, grid: Numbers) -> Numbers:
        """Return the values at the steps of a grid, interpolated between buckets' last values.

        Outside the curve, they are NaN.
        """
        return np.interp(grid, self.step, self.last, left=np.nan, right=np.nan)


class Thinner:
    """A collector of (step, value) points that keeps buckets of steps with their extremes.

    The buckets double in width as the run goes on; there are never more than `buckets`, so memory
    does not depend on the length of the run.
    """

    def __init__(self, buckets: int = _BUCKETS) -> None:
        """Begin with buckets of one step."""
        self._most = buckets
        self._width = 1
        self._first: int | None = None
        # index: [last value, its step, low, its step, high, its step]
        self._buckets: dict[int, list[float]] = {}

    def add(self, step: int, value: float) -> None:
        """Add one point."""
        self._first = step if self._first is None else min(step, self._first)
        self._merge(step // self._width, [value, step, value, step, value, step])
        while len(self._buckets) > self._most:
            self._width *= 2
            former, self._buckets = self._buckets, {}
            for index, bucket in former.items():
                self._merge(index // 2, bucket)

    def curve(self) -> Curve | None:
        """Return the thinned curve, in order of step; None before the first point."""
        if self._first is None:
            return None
        rows = np.array([self._buckets[index] for index in sorted(self._buckets)], np.float64)
        last, step, low, low_step, high, high_step = rows.T
        return Curve(step, last, low, high, low_step, high_step, self._first)

    def _merge(self, index: int, bucket: list[float]) -> None:
        into = self._buckets.setdefault(index, bucket)
        if into is bucket:
            return
        last, step, low, low_step, high, high_step = bucket
        if step >= into[1]:
            into[0:2] = last, step
        if low < into[2]:
            into[2:4] = low, low_step
        if high > into[4]:
            into[4:6] = high, high_step
