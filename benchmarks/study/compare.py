"""The comparison of two arms, seed by seed, and its form in a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

from noisynet.evaluation.scores import (
    bootstrap_interval,
    interquartile_mean,
    interquartile_means,
    mean_interval,
)

from .part import Record


@dataclass(frozen=True)
class Compared:
    """The means of two arms over the seeds that both have, and their mean difference per seed."""

    seeds: int
    ours: float
    theirs: float
    difference: float
    interval: tuple[float, float] | None
    """The 95 % interval of the difference (Student's t); None for fewer than two seeds."""
    p_value: float | None
    """Of the difference, two-sided, by the same t; None if it is the same for each seed."""

    @property
    def sign(self) -> int:
        """The sign of the difference, 1 or −1, if its interval excludes 0; otherwise 0."""
        if self.interval is None or self.interval[0] <= 0 <= self.interval[1]:
            return 0
        return 1 if self.difference > 0 else -1


def paired(
    records: Sequence[Record], task: str, ours: str, theirs: str, figure: str
) -> Compared | None:
    """Compare a figure of two arms on a task; None where they have no seed in common."""
    of = _of_common_seeds(records, task, ours, theirs, figure)
    if of is None:
        return None
    first, second = of
    return Compared(
        seeds=len(first),
        ours=float(first.mean()),
        theirs=float(second.mean()),
        difference=float((first - second).mean()),
        interval=mean_interval(first - second),
        p_value=_p_value(first - second),
    )


def _p_value(differences: np.ndarray) -> float | None:
    number = len(differences)
    if number < 2 or np.ptp(differences) == 0:
        return None
    error = float(differences.std(ddof=1)) / number**0.5
    return 2 * float(stdtr(number - 1, -abs(float(differences.mean())) / error))


def ratios(
    records: Sequence[Record], task: str, ours: str, theirs: str, figure: str
) -> list[float]:
    """Return the ratio of our figure to theirs for each seed that both arms have."""
    of = _of_common_seeds(records, task, ours, theirs, figure)
    return [] if of is None else (of[0] / of[1]).tolist()


def _of_common_seeds(
    records: Sequence[Record], task: str, ours: str, theirs: str, figure: str
) -> tuple[np.ndarray, np.ndarray] | None:
    first, second = (
        {
            one["seed"]: float(one[figure])
            for one in records
            if (one["task"], one["arm"]) == (task, arm)
        }
        for arm in (ours, theirs)
    )
    common = sorted(first.keys() & second.keys())
    if not common:
        return None
    return np.array([first[seed] for seed in common]), np.array([second[seed] for seed in common])


def cell(found: Compared) -> str:
    """Format a difference with its interval and number of seeds; bold if the interval omits 0."""
    if found.interval is None:
        return f"n = {found.seeds}: no interval"
    text = f"{signed(found.difference)} {span(found.interval, plus=True)} (n = {found.seeds})"
    return f"**{text}**" if found.sign else text


def mean_cell(values: Sequence[float]) -> str:
    """Format a mean with its interval; for fewer than two seeds, only their number."""
    interval = mean_interval(values) if values else None
    if interval is None:
        return f"n = {len(values)}"
    return f"{signed(float(np.mean(values)), plus=False)} {span(interval)} (n = {len(values)})"


def iqm_cell(values: Sequence[float]) -> str:
    """Format an interquartile mean with its bootstrap interval, as `mean_cell` does a mean.

    It is for times, whose mean could depend on a single run that was suspended meanwhile.
    """
    interval = bootstrap_interval(interquartile_means, [values]) if values else None
    if interval is None:
        return f"n = {len(values)}"
    return f"{signed(interquartile_mean(values), plus=False)} {span(interval)} (n = {len(values)})"


def span(interval: tuple[float, float], *, plus: bool = False) -> str:
    """Format an interval as [low, high]."""
    return f"[{signed(interval[0], plus=plus)}, {signed(interval[1], plus=plus)}]"


def signed(value: float, *, plus: bool = True) -> str:
    """Format a number with its sign, as three digits, or whole from 1000 on; 0 has no sign."""
    text = (f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}").replace("-", "−")
    if text in ("0", "−0"):
        return "0"
    return f"+{text}" if plus and value > 0 else text
