"""Statistics of returns: human-normalised scores, interquartile means, intervals. No torch."""

import csv
import importlib.resources
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from ..extras import install_command

_GYMNASIUM_ID = re.compile(r"ALE/(?P<name>\w+)-v\d+")


@dataclass(frozen=True, slots=True)
class ReferenceScores:
    """Reference scores of a game with no-op starts; data/README.md names the source."""

    random: float
    """The mean return of uniformly random actions."""
    human: float
    """The mean return of a human tester."""


def atari57_games() -> list[str]:
    """Return the names of the 57 games of the benchmark, as `ms_pacman`."""
    return list(_table())


def reference_scores(game_id: str) -> ReferenceScores | None:
    """Return the random and human scores of `ALE/MsPacman-v5`, also called `ms_pacman`.

    None for an id outside the 57 games.
    """
    table = _table()
    match = _GYMNASIUM_ID.fullmatch(game_id)
    if match is None:
        return table.get(game_id)
    # ale-py makes its ids from ROM names by the same rule, so this is exact, also for digits.
    ids = {game.title().replace("_", ""): game for game in table}
    game = ids.get(match["name"])
    return None if game is None else table[game]


def human_normalised(game_id: str, score: float) -> float | None:
    """Return 100 · (score − random) / (human − random), in percent; None for an unknown game."""
    reference = reference_scores(game_id)
    if reference is None:
        return None
    return 100.0 * (score - reference.random) / (reference.human - reference.random)


def mean_interval(
    returns: Sequence[float] | npt.NDArray[np.floating], confidence: float = 0.95
) -> tuple[float, float] | None:
    """Return Student's interval for the mean: mean ± t · s / √n with n − 1 degrees of freedom.

    None for fewer than 2 returns, since one game says nothing about the spread. Equal returns give
    an interval of zero width, which says only that these games did not differ.

    It is not a bootstrap: at 95 % confidence and n = 5, the share of intervals that contained the
    true mean was 0.95 (Student), 0.84 (percentile) and 0.84 (BCa) for normal returns, and 0.88,
    0.79 and 0.80 for exponential ones; from n = 30 on they agree. For skewed returns it contains
    the mean less often than stated, and it may extend beyond the scores that a game can give.

    Raises ValueError for returns that are not finite or a confidence not between 0 and 1.
    """
    values = _finite(returns)
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence: got {confidence!r}, expected a number between 0 and 1")
    if len(values) < 2:
        return None
    mean = float(values.mean())
    if float(values.min()) == float(values.max()):
        return float(values[0]), float(values[0])
    quantile = _student_quantile(len(values) - 1, 0.5 + confidence / 2.0)
    half = quantile * float(values.std(ddof=1)) / math.sqrt(len(values))
    return mean - half, mean + half


def mean_difference_interval(
    ours: Sequence[float] | npt.NDArray[np.floating],
    theirs: Sequence[float] | npt.NDArray[np.floating],
) -> tuple[float, float] | None:
    """Return the 95 % interval of mean(ours) - mean(theirs), by Welch's t: spreads may differ.

    None for fewer than 2 returns on a side. Returns that are all equal on each side give an
    interval of zero width. Raises ValueError for returns that are not finite.
    """
    first, second = _finite(ours), _finite(theirs)
    if min(len(first), len(second)) < 2:
        return None
    difference = float(first.mean() - second.mean())
    parts = [float(one.var(ddof=1)) / len(one) for one in (first, second)]
    variance = sum(parts)
    if variance == 0:
        return difference, difference
    # Computed from shares, since the square of a tiny variance is 0.
    freedom = 1 / sum(
        (part / variance) ** 2 / (len(one) - 1)
        for part, one in zip(parts, (first, second), strict=True)
    )
    half = _student_quantile(freedom, 0.975) * math.sqrt(variance)
    return difference - half, difference + half


def _student_quantile(freedom: float, share: float) -> float:
    try:
        from scipy.special import stdtrit
    except ImportError as error:
        raise ImportError(f"intervals need SciPy: {install_command('train')}") from error
    return float(stdtrit(freedom, share))


def interquartile_mean(scores: Sequence[float] | npt.NDArray[np.floating]) -> float:
    """Return the mean of the middle half: ⌊n/4⌋ scores are left out at each end.

    Agarwal et al. (arXiv 2108.13264) use it over all runs of all games together.
    Raises ValueError for no scores, or for scores that are not finite.
    """
    ordered = np.sort(_finite(scores))
    if len(ordered) == 0:
        raise ValueError("scores: got none, expected at least one")
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


_AT_A_TIME = 250


def bootstrap_interval(
    statistic: Callable[..., npt.ArrayLike],
    strata: Sequence[npt.ArrayLike],
    *,
    confidence: float = 0.95,
    resamples: int = 5_000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Return the percentile interval of a statistic under the stratified bootstrap.

    Each stratum, such as the runs of one agent on one game, is resampled separately, with
    replacement (Agarwal et al., arXiv 2108.13264, §3). `statistic` maps as many arrays as there are
    strata, each (resamples, scores of that stratum), to (resamples,). The same seed gives the same
    interval.

    None if a stratum has fewer than 2 scores, since one run says nothing about the spread, and for
    fewer than 3 scores in all: two scores would be the ends of the interval, which contains the
    median of their distribution only half of the time. With few runs the interval is too narrow;
    see `mean_interval`. Raises ValueError for no strata, scores that are not finite or a confidence
    not between 0 and 1.
    """
    rows = [_finite(np.asarray(scores, np.float64)) for scores in strata]
    if not rows:
        raise ValueError("strata: got none, expected at least one")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence: got {confidence!r}, expected a number between 0 and 1")
    if min(len(row) for row in rows) < 2 or sum(map(len, rows)) < 3:
        return None
    generator = np.random.default_rng(seed)
    drawn = [row[generator.integers(len(row), size=(resamples, len(row)))] for row in rows]
    tail = (1.0 - confidence) / 2.0
    # In chunks: a statistic of pairs takes memory for each pair of scores in each resample.
    found = [
        np.asarray(statistic(*(row[begin : begin + _AT_A_TIME] for row in drawn)), np.float64)
        for begin in range(0, resamples, _AT_A_TIME)
    ]
    low, high = np.quantile(np.concatenate(found), [tail, 1.0 - tail])
    return float(low), float(high)


def interquartile_means(*strata: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the interquartile mean of each resample, over all strata together.

    For `bootstrap_interval`: each stratum is (resamples, scores), the result (resamples,).
    """
    ordered = np.sort(np.concatenate(strata, axis=1), axis=1)
    cut = ordered.shape[1] // 4
    return ordered[:, cut : ordered.shape[1] - cut].mean(axis=1)


def probability_of_improvement(
    ours: Sequence[npt.ArrayLike], theirs: Sequence[npt.ArrayLike]
) -> float:
    """Return the probability that a run of ours scores higher than a run of theirs, from 0 to 1.

    Both have one array of scores for each game, in the same order of games. The probability is the
    share of pairs of runs of a game that ours wins, where a tie counts one half, averaged over
    games (Agarwal et al., arXiv 2108.13264, §4.3). Raises ValueError for different numbers of
    games, for a game without scores, or for scores that are not finite.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"games: got {len(ours)} and {len(theirs)}, expected the same, at least 1")
    rows = [_finite(np.asarray(scores, np.float64))[None] for scores in (*ours, *theirs)]
    if min(row.shape[1] for row in rows) == 0:
        raise ValueError("scores: got a game with none, expected at least one")
    return float(improvements(*rows)[0])


def improvements(*strata: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the probability of improvement of each resample, for `bootstrap_interval`.

    The strata (resamples, scores) are ours, one for each game, and then theirs in the same order.
    """
    games = len(strata) // 2
    shares = []
    for ours, theirs in zip(strata[:games], strata[games:], strict=True):
        difference = ours[:, :, None] - theirs[:, None, :]
        wins = (difference > 0) + 0.5 * (difference == 0)
        shares.append(wins.mean(axis=(1, 2)))
    return np.mean(shares, axis=0)


def _finite(values: Sequence[float] | npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return `values`, of any shape, as one row; raise ValueError if any is NaN or infinite."""
    row = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(row).all():
        raise ValueError(f"returns: got {row.tolist()}, expected finite numbers")
    return row


@cache
def _table() -> dict[str, ReferenceScores]:
    """Read the packaged table: {game: its scores}."""
    folder = importlib.resources.files("noisynet.evaluation") / "data"
    text = (folder / "atari57_human_random.csv").read_text(encoding="utf-8")
    return {
        row["game"]: ReferenceScores(random=float(row["random"]), human=float(row["human"]))
        for row in csv.DictReader(text.splitlines())
    }
