"""A search for hyperparameters by Optuna: the points that it suggests, and their scores.

The trials are like those of any suite, with the same runner. So the folders are the only record of
a search, and it continues from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..cluster.errors import ScaleError
from ..extras import install_command
from ..runs.errors import RunError
from .file import Space, Suite
from .runner import Ended
from .trials import SearchSpace, Trial


@dataclass(frozen=True)
class _Point:
    """A point of the search space, and the names of its trials, one for each seed."""

    asked: Any
    """Optuna's trial."""
    values: dict[str, Any]
    trials: list[str]


class SearchSource:
    """The source of the trials of points that Optuna suggests, `concurrent` points at a time.

    The k-th suggestion is based on all points before it except for the last `concurrent` − 1,
    whether those have ended or not. So a search is reproducible: after an interruption it suggests
    the same points again, finds the folders of those that are done, and continues with the others.
    In return, a slow point delays the suggestions after it.
    """

    def __init__(self, suite: Suite) -> None:
        """Check the suite; raises SuiteErrors for what is wrong, ScaleError without Optuna."""
        search = suite.search
        assert search is not None, "a suite with a search"
        self._search = search
        self._space = SearchSpace(suite)
        self._noise = suite.evaluation.noise[0]
        try:
            import optuna
        except ImportError as error:
            raise ScaleError(f"search needs {error.name}: {install_command('ray')}") from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._failed = optuna.trial.TrialState.FAIL
        self._study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=search.seed)
        )
        self._distributions = {
            name: _distribution(optuna.distributions, space) for name, space in search.space.items()
        }
        self._points: list[_Point] = []
        self._told = 0

    @property
    def first(self) -> list[Trial]:
        """The trials of one corner of the space, which show what a point costs."""
        return self._space.trials(
            {
                name: space.choices[0] if space.choices else space.low
                for name, space in self._search.space.items()
            }
        )

    def more(self, ended: Ended) -> Sequence[Trial]:
        """Return the next point's trials; none until the oldest of `concurrent` points ends."""
        while len(self._points) < self._search.trials:
            waiting = len(self._points) - self._told
            if waiting >= self._search.concurrent and not self._tell(ended):
                return []
            # Without any, an earlier point has the same values, and its trials count for both.
            fresh = [trial for trial in self._ask(ended) if trial.name not in ended.trials]
            if fresh:
                return fresh
        return []

    def _ask(self, ended: Ended) -> Sequence[Trial]:
        """Return the next point's trials; none, and a failure, if its values do not go together."""
        asked = self._study.ask(self._distributions)
        values = {
            name: space.choices[asked.params[name]] if space.choices else asked.params[name]
            for name, space in self._search.space.items()
        }
        trials: Sequence[Trial] = []
        try:
            trials = self._space.trials(values)
        except RunError as error:
            ended.failures[f"point {len(self._points) + 1}"] = str(error)
        self._points.append(_Point(asked, values, [trial.name for trial in trials]))
        return trials

    def _tell(self, ended: Ended) -> bool:
        """Tell Optuna the score of the oldest point not yet told; False until it has ended."""
        point = self._points[self._told]
        if not all(name in ended.results or name in ended.failures for name in point.trials):
            return False
        score = self._score(point, ended)
        self._study.tell(point.asked, score, state=self._failed if score is None else None)
        self._told += 1
        return True

    def _score(self, point: _Point, ended: Ended) -> float | None:
        """Return the mean return over the point's seeds; None unless all of them are done."""
        scores: list[float] = []
        for name in point.trials:
            if name not in ended.results:
                return None
            played = ended.results[name]["evaluations"]
            scores.append(float(played.get(self._noise, next(iter(played.values())))["mean"]))
        return sum(scores) / len(scores) if scores else None

    def table(self, ended: Ended) -> list[dict[str, Any]]:
        """Return a row for each point, the best first: its values, score and trials."""
        rows = [
            {**point.values, "score": self._score(point, ended), "trials": " ".join(point.trials)}
            for point in self._points
        ]
        return sorted(rows, key=lambda row: (row["score"] is None, -(row["score"] or 0.0)))


def _distribution(kinds: Any, space: Space) -> Any:
    if space.choices:
        # By their index: Optuna does not accept lists as values.
        return kinds.CategoricalDistribution(range(len(space.choices)))
    kind = kinds.IntDistribution if space.whole else kinds.FloatDistribution
    return kind(*space.ends, log=space.log)
