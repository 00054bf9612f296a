"""A suite's scores: by game, and human-normalised over all games, beside published ones."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..evaluation.scores import bootstrap_interval, interquartile_mean, interquartile_means
from .published import PUBLISHED, PublishedName, atari_game, normalised, published_scores
from .trials import Trial


def suite_scores(
    trials: Mapping[str, Trial],
    results: Mapping[str, Mapping[str, Any]],
    seconds: Mapping[str, float | None] | None = None,
    published: PublishedName = "noisynet",
) -> dict[str, Any]:
    """Summarise the results of trials, which are given by name, as plain values ready for JSON.

    A trial's score is the mean return of its evaluation's games. `games` has a row for each game,
    label and state of the noise: mean, deviation and interquartile mean over seeds with the 95 %
    interval of the stratified bootstrap. `overall` has a row for each label and state of the noise
    over Atari's games, human-normalised in percent (Agarwal et al., arXiv 2108.13264): median and
    mean over games of the mean over seeds, and the interquartile mean over all runs. `published`
    has the same for the published agents on the same games.

    The argument `seconds` has the training time of each trial. In the rows, `minutes` is the mean
    of these times, and `noise_share` the share of it by which training takes longer than that of
    the one label without noise.
    """
    scores: dict[tuple[str, str, str], dict[int, float]] = {}
    for name, trial in trials.items():
        for noise, played in results.get(name, {}).get("evaluations", {}).items():
            key = trial.game, trial.label, noise
            scores.setdefault(key, {})[trial.seed] = float(played["mean"])
    minutes = _minutes(trials, seconds or {})
    timed = [trial for trial in trials.values() if (trial.game, trial.label) in minutes]
    plain = list({one.label for one in timed if not one.config.exploration.has_noise})
    rows: list[dict[str, Any]] = []
    atari: dict[tuple[str, str], dict[str, list[float]]] = {}
    for (environment, label, noise), by_seed in scores.items():
        rows.append(
            _game_row(environment, label, noise, by_seed, published)
            | _cost(minutes, plain, label, [environment])
        )
        games = atari.setdefault((label, noise), {})
        if (game := atari_game(environment)) is not None:
            games[game] = list(by_seed.values())
    known = list(dict.fromkeys(game for games in atari.values() for game in games))
    return {
        "games": rows,
        "overall": [
            _overall_row(f"{label}, noise {noise}", games)
            | _cost(minutes, plain, label, [one for one, has in minutes if has == label])
            for (label, noise), games in atari.items()
            if games
        ],
        "published": published_overall(known, published),
    }


def _minutes(
    trials: Mapping[str, Trial], seconds: Mapping[str, float | None]
) -> dict[tuple[str, str], float]:
    """Return the mean training time of each label on each game, (game, label)."""
    taken: dict[tuple[str, str], list[float]] = {}
    for name, trial in trials.items():
        if (one := seconds.get(name)) is not None:
            taken.setdefault((trial.game, trial.label), []).append(one / 60)
    return {key: float(np.mean(those)) for key, those in taken.items()}


def _cost(
    minutes: Mapping[tuple[str, str], float],
    plain: Sequence[str],
    label: str,
    environments: Sequence[str],
) -> dict[str, float | None]:
    """Return the mean minutes of a label, and the share of them that its noise costs.

    The share is None unless exactly one label is `plain`, without noise, and has played the same
    games.
    """
    mine = [minutes[one, label] for one in environments if (one, label) in minutes]
    share = None
    if len(plain) == 1 and label not in plain:
        found = [minutes[one, plain[0]] for one in environments if (one, plain[0]) in minutes]
        if mine and len(found) == len(mine):
            share = 1.0 - sum(found) / sum(mine)
    return {"minutes": float(np.mean(mine)) if mine else None, "noise_share": share}


def _game_row(
    environment: str,
    label: str,
    noise: str,
    by_seed: Mapping[int, float],
    published: PublishedName,
) -> dict[str, Any]:
    values = [by_seed[seed] for seed in sorted(by_seed)]
    mean = float(np.mean(values))
    game = atari_game(environment)
    row = None if game is None else published_scores(published).get(game)
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
            f"published_{agent}": None if row is None else row[agent]
            for agent in PUBLISHED[published].agents
        },
    }


def published_overall(games: Sequence[str], published: PublishedName) -> list[dict[str, Any]]:
    """Return each published agent's human-normalised scores over the games that its table has.

    A table has one mean for each game, so the interquartile mean is over games, with no interval.
    `mean_as_printed` takes Video Pinball's random score as 0.
    """
    table, scores = PUBLISHED[published], published_scores(published)
    known = [game for game in games if game in scores]
    if not known:
        return []
    return [
        _overall_row(f"{name} ({table.source})", {game: [scores[game][agent]] for game in known})
        | {"runs": None}
        for agent, name in table.agents.items()
    ]


def _overall_row(label: str, games: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Summarise scores by game; intervals are None if a game has only one score."""
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
        "median_interval": bootstrap_interval(_over_games(np.median), strata),
        "mean": float(np.mean(means)),
        "mean_interval": bootstrap_interval(_over_games(np.mean), strata),
        "mean_as_printed": float(np.mean(printed)),
        "iqm": interquartile_mean([one for values in strata for one in values]),
        "iqm_interval": bootstrap_interval(interquartile_means, strata),
    }


def _over_games(statistic: Callable[..., Any]) -> Callable[..., npt.ArrayLike]:
    """Return the bootstrap's statistic that is taken over the means of the games."""
    return lambda *strata: statistic([one.mean(axis=1) for one in strata], axis=0)


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV; an interval takes two columns, `_low` and `_high`."""
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
