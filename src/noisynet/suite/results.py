"""What a suite came to: scores by game, and human-normalised over all, beside the paper's."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..evaluation.scores import (
    atari57_games,
    bootstrap_interval,
    interquartile_mean,
    interquartile_means,
)
from .paper import AGENTS, normalised, paper_overall, paper_scores
from .trials import Trial

_ATARI = re.compile(r"ALE/(\w+)-v\d+")


def suite_scores(
    trials: Mapping[str, Trial], results: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Sum up the results of trials, by their names; plain values, ready for JSON.

    A trial's score is the mean return of its evaluation's games. `games` has a row for each game,
    label and state of the noise: mean, deviation and interquartile mean over seeds with the 95 %
    interval of the stratified bootstrap. `overall` has a row for each label and state of the noise
    over Atari's games, in percent of human (Agarwal et al., arXiv 2108.13264): median and mean over
    games of the mean over seeds, and the interquartile mean over all runs. `paper` has the same of
    the paper's agents over the same games.
    """
    scores: dict[tuple[str, str, str], dict[int, float]] = {}
    for name, trial in trials.items():
        for noise, played in results.get(name, {}).get("evaluations", {}).items():
            key = trial.game, trial.label, noise
            scores.setdefault(key, {})[trial.seed] = float(played["mean"])
    rows = [_game_row(*key, by_seed) for key, by_seed in scores.items()]
    known = list(dict.fromkeys(game for key in scores if (game := atari_game(key[0])) is not None))
    overall = [
        _overall_row(label, noise, {k[0]: v for k, v in scores.items() if k[1:] == (label, noise)})
        for label, noise in dict.fromkeys(key[1:] for key in scores)
    ]
    return {
        "games": rows,
        "overall": [row for row in overall if row is not None],
        "paper": paper_overall(known) if known else [],
    }


def atari_game(environment: str) -> str | None:
    """Give the paper's name of an environment id, such as ms_pacman; None for other games."""
    match = _ATARI.fullmatch(environment)
    if match is None:
        return None
    ids = {game.title().replace("_", ""): game for game in atari57_games()}
    return ids.get(match[1])


def _game_row(
    environment: str, label: str, noise: str, by_seed: Mapping[int, float]
) -> dict[str, Any]:
    values = [by_seed[seed] for seed in sorted(by_seed)]
    game = atari_game(environment)
    row: dict[str, Any] = {
        "environment": environment,
        "label": label,
        "noise": noise,
        "runs": len(values),
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "iqm": interquartile_mean(values),
        "iqm_interval": bootstrap_interval(interquartile_means, [values]),
        "human_normalised": None if game is None else normalised(game, float(np.mean(values))),
    }
    row |= {
        f"paper_{agent}": None if game is None else paper_scores()[game].mean[agent]
        for agent in AGENTS
    }
    return row


def _overall_row(
    label: str, noise: str, by_game: Mapping[str, Mapping[int, float]]
) -> dict[str, Any] | None:
    games = {
        game: list(by_seed.values())
        for environment, by_seed in by_game.items()
        if (game := atari_game(environment)) is not None
    }
    if not games:
        return None
    strata = [[normalised(game, one) for one in values] for game, values in games.items()]
    printed = [
        normalised(game, float(np.mean(values)), as_printed=True) for game, values in games.items()
    ]
    means = [float(np.mean(values)) for values in strata]
    return {
        "label": f"{label}, noise {noise}",
        "games": len(games),
        "runs": sum(map(len, strata)),
        "median": float(np.median(means)),
        "median_interval": bootstrap_interval(_medians_of_means, strata),
        "mean": float(np.mean(means)),
        "mean_interval": bootstrap_interval(_means_of_means, strata),
        "mean_as_printed": float(np.mean(printed)),
        "iqm": interquartile_mean([one for values in strata for one in values]),
        "iqm_interval": bootstrap_interval(interquartile_means, strata),
    }


def _medians_of_means(*strata: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.median(np.stack([one.mean(axis=1) for one in strata]), axis=0)


def _means_of_means(*strata: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.mean(np.stack([one.mean(axis=1) for one in strata]), axis=0)


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as CSV; an interval takes two columns, `_low` and `_high`."""
    flat = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name.endswith("interval"):
            low, high = (None, None) if value is None else value
            flat |= {f"{name}_low": low, f"{name}_high": high}
        else:
            flat[name] = value
    return flat
