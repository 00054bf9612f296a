"""What returns say: human-normalised scores, interquartile means and intervals. No torch."""

import csv
import importlib.resources
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

_GYMNASIUM_ID = re.compile(r"ALE/(?P<name>\w+)-v\d+")


@dataclass(frozen=True, slots=True)
class ReferenceScores:
    """The standard scores of a game, no-op starts; the source is beside the packaged table."""

    random: float
    """The mean return of uniformly random actions."""
    human: float
    """The mean return of a human tester."""


def atari57_games() -> list[str]:
    """Return the names of the 57 games of the benchmark, as `ms_pacman`."""
    return list(_table())


def reference_scores(game_id: str) -> ReferenceScores | None:
    """Return the random and human scores of `ALE/MsPacman-v5`, also called `ms_pacman`.

    None for an id that is none of the 57 games.
    """
    table = _table()
    match = _GYMNASIUM_ID.fullmatch(game_id)
    if match is None:
        return table.get(game_id)
    # ale-py makes its ids of ROM names by the same rule, so this is exact for digits and all.
    ids = {game.title().replace("_", ""): game for game in table}
    game = ids.get(match["name"])
    return None if game is None else table[game]


def human_normalised(game_id: str, score: float) -> float | None:
    """Return 100 · (score − random) / (human − random), in percent; None where unknown."""
    reference = reference_scores(game_id)
    if reference is None:
        return None
    return 100.0 * (score - reference.random) / (reference.human - reference.random)


def mean_interval(
    returns: Sequence[float] | npt.NDArray[np.floating], confidence: float = 0.95
) -> tuple[float, float] | None:
    """Return Student's interval for the mean: mean ± t · s / √n with n − 1 degrees of freedom.

    None for fewer than 2 returns: one game says nothing of the spread. Equal returns give an
    interval of no width, which says that these games did not differ and no more than that.

    Not a bootstrap: at 95 % of confidence and n = 5, the share of intervals that held the true
    mean was 0.97 (Student), 0.84 (percentile) and 0.84 (BCa) of normal returns, and 0.88, 0.79
    and 0.80 of exponential ones; from n = 30 they agree. Of skewed returns it holds less than it
    says, and it may reach beyond the scores that a game can give.

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
    try:
        from scipy.special import stdtrit
    except ImportError as error:
        raise ImportError("intervals need SciPy: pip install 'noisynet[train]'") from error
    quantile = float(stdtrit(len(values) - 1, 0.5 + confidence / 2.0))
    half = quantile * float(values.std(ddof=1)) / math.sqrt(len(values))
    return mean - half, mean + half


def interquartile_mean(scores: Sequence[float] | npt.NDArray[np.floating]) -> float:
    """Return the mean of the middle half: ⌊n/4⌋ scores are left out at each end.

    Of all runs of all games together, as Agarwal et al. (arXiv 2108.13264) use it.
    Raises ValueError for no scores, or for scores that are not finite.
    """
    ordered = np.sort(_finite(scores))
    if len(ordered) == 0:
        raise ValueError("scores: got none, expected at least one")
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


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
