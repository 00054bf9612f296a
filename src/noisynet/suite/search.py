"""Hyperparameters by Optuna's search, as Ray Tune wraps it, over the same runner as a grid.

Tune's searcher chooses, and hears how it came out. The trials are those of any suite, on the same
runner: so a search has one record of its points, the folders, and goes on from them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..cluster.errors import ScaleError
from .file import Space, Suite
from .trials import SearchSpace, Trial


class SearchSource:
    """Give out the trials of points that Optuna suggests, so many at the same time.

    The k-th suggestion rests on the points before it but for the last `concurrent` − 1, however
    fast those were. So a search repeats itself exactly: one that was interrupted suggests the same
    points again, finds the folders of those that are done, and goes on with the others. What it
    costs is that a slow point keeps the suggestions after it waiting.
    """

    def __init__(self, suite: Suite) -> None:
        """Check the suite; raises SuiteErrors for what is wrong, ScaleError without Optuna."""
        search = suite.search
        assert search is not None, "a suite with a search"
        self._search = search
        self._space = SearchSpace(suite)
        self._searcher = _searcher(search.space, search.seed)
        self._noise = suite.evaluation.noise[0]
        self._points: list[_Point] = []
        self._told = 0
        self._given: set[str] = set()
        self._scores: dict[str, float | None] = {}

    @property
    def first(self) -> list[Trial]:
        """Give the trials of a corner of the space: what one point costs."""
        values = {name: one.choices[0] if one.choices else one.low for name, one in self._ranges()}
        return self._space.trials(values)

    def _ranges(self) -> Sequence[tuple[str, Space]]:
        return list(self._search.space.items())

    def more(self) -> Sequence[Trial]:
        """Suggest a point where there is room for one."""
        while len(self._points) < self._search.trials:
            if len(self._points) - self._told >= self._search.concurrent and not self._tell():
                return []
            trials = self._suggest()
            # The very values of an earlier point: its trials answer for both.
            fresh = [trial for trial in trials if trial.name not in self._given]
            self._given.update(trial.name for trial in trials)
            if fresh:
                return fresh
        return []

    def _suggest(self) -> Sequence[Trial]:
        suggested = self._searcher.suggest(f"point-{len(self._points)}")
        values = {
            name: one.choices[int(suggested[name])] if one.choices else suggested[name]
            for name, one in self._ranges()
        }
        trials = self._space.trials(values)
        self._points.append(_Point(values, [trial.name for trial in trials]))
        return trials

    def _tell(self) -> bool:
        """Tell Optuna the score of the oldest point it has not heard of; False before its end."""
        point = self._points[self._told]
        if not all(name in self._scores for name in point.trials):
            return False
        score = self._score(point)
        result = None if score is None else {"score": score}
        self._searcher.on_trial_complete(f"point-{self._told}", result, error=score is None)
        self._told += 1
        return True

    def ended(self, trial: Trial, result: dict[str, Any] | None) -> None:
        """Keep a trial's score, None where it failed."""
        self._scores[trial.name] = None if result is None else _score(result, self._noise)

    def _score(self, point: _Point) -> float | None:
        """Give the mean over the point's seeds; None where one failed or is not done."""
        scores = [self._scores.get(name) for name in point.trials]
        good = [one for one in scores if one is not None]
        return sum(good) / len(good) if len(good) == len(scores) else None

    def table(self) -> list[dict[str, Any]]:
        """List the points, the best first: their values, score and trials."""
        rows = [
            {**point.values, "score": self._score(point), "trials": " ".join(point.trials)}
            for point in self._points
        ]
        return sorted(rows, key=lambda row: (row["score"] is None, -(row["score"] or 0.0)))


@dataclass(frozen=True)
class _Point:
    """Hold values of the space, and the names of their trials, one for each seed."""

    values: dict[str, Any]
    trials: list[str]


def _score(result: Mapping[str, Any], noise: str) -> float:
    played = result["evaluations"]
    return float(played.get(noise, next(iter(played.values())))["mean"])


def _searcher(space: Mapping[str, Space], seed: int) -> Any:
    try:
        import optuna

        with warnings.catch_warnings():
            # Tune imports names that its own dependencies have declared old.
            warnings.simplefilter("ignore")
            from ray.tune.search.optuna import OptunaSearch
    except ImportError as error:
        raise ScaleError(f"search needs {error.name}: pip install 'noisynet[ray]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {name: _distribution(optuna, one) for name, one in space.items()}
    return OptunaSearch(distributions, metric="score", mode="max", seed=seed)


def _distribution(optuna: Any, space: Space) -> Any:
    kinds = optuna.distributions
    if space.choices:
        # By their place: Optuna takes no lists as values.
        return kinds.CategoricalDistribution(tuple(range(len(space.choices))))
    if space.whole:
        return kinds.IntDistribution(space.low, space.high, log=space.log)
    return kinds.FloatDistribution(float(space.low or 0.0), float(space.high or 0.0), log=space.log)
