"""A figure over training, in memory that does not grow with the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..evaluation.scores import mean_interval

Numbers = npt.NDArray[np.float64]

_BUCKETS = 256


@dataclass(frozen=True)
class Curve:
    """Hold what is left of a figure after thinning: buckets of steps, each (buckets,)."""

    step: Numbers
    """The bucket's last step."""
    mean: Numbers
    last: Numbers
    """The value at the bucket's last step."""
    low: Numbers
    high: Numbers
    low_step: Numbers
    high_step: Numbers
    first_step: int
    """Where it begins, within the first bucket."""

    def extremes(self) -> tuple[Numbers, Numbers]:
        """Give steps and values of the lowest and highest point of each bucket, in order."""
        steps = np.stack([self.low_step, self.high_step], axis=1)
        values = np.stack([self.low, self.high], axis=1)
        order = np.argsort(steps, axis=1, kind="stable")
        steps, values = (np.take_along_axis(one, order, axis=1) for one in (steps, values))
        keep = np.ones(steps.shape, np.bool_)
        keep[:, 1] = steps[:, 1] > steps[:, 0]
        return steps[keep], values[keep]

    def at(self, step: float) -> float | None:
        """Give the last value of the last bucket that ends by a step; None before the first."""
        place = int(np.searchsorted(self.step, step, side="right")) - 1
        return None if place < 0 else float(self.last[place])

    def on(self, grid: Numbers) -> Numbers:
        """Give the values at the steps of a grid, by straight lines between buckets' last values.

        NaN outside of the curve.
        """
        return np.interp(grid, self.step, self.last, left=np.nan, right=np.nan)


class Thinner:
    """Take (step, value) one after the other and keep buckets of steps with their extremes.

    Buckets become wider, by doubling, as the run goes on; there are never more than `buckets`, so
    memory does not depend on the length of the run.
    """

    def __init__(self, buckets: int = _BUCKETS) -> None:
        """Begin with buckets of one step."""
        self._most = buckets
        self._width = 1
        self._first: int | None = None
        # index: [count, total, last, last step, low, its step, high, its step]
        self._buckets: dict[int, list[float]] = {}

    def add(self, step: int, value: float) -> None:
        """Take one point."""
        self._first = step if self._first is None else min(step, self._first)
        index = step // self._width
        bucket = self._buckets.get(index)
        if bucket is None:
            self._buckets[index] = [1, value, value, step, value, step, value, step]
            while len(self._buckets) > self._most:
                self._widen()
            return
        bucket[0] += 1
        bucket[1] += value
        bucket[2], bucket[3] = value, step
        if value < bucket[4]:
            bucket[4], bucket[5] = value, step
        if value > bucket[6]:
            bucket[6], bucket[7] = value, step

    def curve(self) -> Curve | None:
        """Give what was kept, in order of step; None before the first point."""
        if self._first is None:
            return None
        rows = np.array([self._buckets[index] for index in sorted(self._buckets)], np.float64)
        count, total, last, step, low, low_step, high, high_step = rows.T
        return Curve(step, total / count, last, low, high, low_step, high_step, self._first)

    def _widen(self) -> None:
        self._width *= 2
        former, self._buckets = self._buckets, {}
        for index, bucket in former.items():
            into = self._buckets.setdefault(index // 2, bucket)
            if into is bucket:
                continue
            into[0] += bucket[0]
            into[1] += bucket[1]
            if bucket[3] >= into[3]:
                into[2], into[3] = bucket[2], bucket[3]
            if bucket[4] < into[4]:
                into[4], into[5] = bucket[4], bucket[5]
            if bucket[6] > into[6]:
                into[6], into[7] = bucket[6], bucket[7]


@dataclass(frozen=True)
class Band:
    """Hold the mean of several curves, and where it may lie: each (points,)."""

    step: Numbers
    mean: Numbers
    low: Numbers | None
    """Lower end of the 95 % interval (Student's t); None for one curve."""
    high: Numbers | None
    curves: int


def band(curves: Sequence[Curve], points: int = 160) -> Band | None:
    """Average curves where all of them have values, with a 95 % interval at each point.

    None where they have no step in common.
    """
    begin = max(float(curve.step[0]) for curve in curves)
    end = min(float(curve.step[-1]) for curve in curves)
    if end < begin:
        return None
    grid = np.linspace(begin, end, points) if end > begin else np.array([begin])
    rows = np.stack([curve.on(grid) for curve in curves])
    if len(curves) < 2:
        return Band(grid, rows[0], None, None, 1)
    intervals: list[Any] = [mean_interval(column) for column in rows.T]
    low, high = np.array(intervals, np.float64).T
    return Band(grid, rows.mean(axis=0), low, high, len(curves))
