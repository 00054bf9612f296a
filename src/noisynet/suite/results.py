"""What a suite shows: scores by game, and human-normalised over all, beside the paper's."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..evaluation.scores import bootstrap_interval, interquartile_mean, interquartile_means
from .paper import AGENTS, atari_game, normalised, paper_scores
from .trials import Trial


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
    rows: list[dict[str, Any]] = []
    atari: dict[str, dict[str, list[float]]] = {}
    for (environment, label, noise), by_seed in scores.items():
        rows.append(_game_row(environment, label, noise, by_seed))
        games = atari.setdefault(f"{label}, noise {noise}", {})
        if (game := atari_game(environment)) is not None:
            games[game] = list(by_seed.values())
    known = list(dict.fromkeys(game for games in atari.values() for game in games))
    return {
        "games": rows,
        "overall": [_overall_row(label, games) for label, games in atari.items() if games],
        "paper": paper_overall(known) if known else [],
    }


def _game_row(
    environment: str, label: str, noise: str, by_seed: Mapping[int, float]
) -> dict[str, Any]:
    values = [by_seed[seed] for seed in sorted(by_seed)]
    mean = float(np.mean(values))
    game = atari_game(environment)
    return {
        "environment": environment,
        "label": label,
        "noise": noise,
        "runs": len(values),
        "mean": mean,
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "iqm": interquartile_mean(values),
        "iqm_interval": bootstrap_interval(interquartile_means, [values]),
        "human_normalised": None if game is None else normalised(game, mean),
        **{
            f"paper_{agent}": None if game is None else paper_scores()[game].mean[agent]
            for agent in AGENTS
        },
    }


def paper_overall(games: Sequence[str]) -> list[dict[str, Any]]:
    """Return each of the paper's agents' human-normalised scores over some games.

    The paper gives one mean a game, so its interquartile mean is one over games, without an
    interval. `mean_as_printed` takes Video Pinball's random score as 0.
    """
    return [
        _overall_row(
            f"{name} (the paper)", {game: [paper_scores()[game].mean[agent]] for game in games}
        )
        | {"runs": None}
        for agent, name in AGENTS.items()
    ]


def _overall_row(label: str, games: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Sum up scores by game; intervals are None where a game has one score alone."""
    strata = [[normalised(game, one) for one in scores] for game, scores in games.items()]
    means = [float(np.mean(values)) for values in strata]
    printed = [
        normalised(game, float(np.mean(scores)), as_printed=True) for game, scores in games.items()
    ]
    return {
        "label": label,
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
            flat[f"{name}_low"], flat[f"{name}_high"] = value or (None, None)
        else:
            flat[name] = value
    return flat
