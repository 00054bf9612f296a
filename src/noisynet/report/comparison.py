"""A comparison of runs: interquartile means, intervals, probabilities of improvement."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ..evaluation.scores import (
    bootstrap_interval,
    human_normalised,
    improvements,
    interquartile_mean,
    interquartile_means,
    probability_of_improvement,
)
from ..runs.record import RunRecord
from .groups import Variant

CONFIDENCE = 0.95
LEAST_RUNS = 3
"""The fewest runs of a variant that give an interval and a probability of improvement."""

_MOST_PAIRS = 15


def compare(variants: Sequence[Variant]) -> dict[str, Any]:
    """Compare variants game by game and, if there are several, over all games.

    A run's score is the mean return of its last training games (at most `solved_games` of its
    config) at the last step that all compared runs of the game reached. Runs that ended early
    because they were solved do not limit that step: they keep their last score up to it. If all
    runs were solved, the step is the end of the longest. Over several games, scores are
    human-normalised, in percent. Intervals are 95 % intervals of the stratified bootstrap over runs
    (Agarwal et al., arXiv 2108.13264). A variant of fewer than 3 runs has no interval and no
    probability of improvement.

    `solved_at` of a variant is the median step at which its runs were solved; a run that was not
    counts as later than all that were. It is None if half of the runs or more were not solved.

    Returns plain values, ready for JSON: `games`, `overall` (None for one game, if a game has no
    reference scores, or if no variant played all games) and `notes`, which say what could not be
    compared, and why.
    """
    notes: list[str] = []
    games = list(dict.fromkeys(game for variant in variants for game in variant.games()))
    parts = [part for game in games if (part := _game(game, variants, notes)) is not None]
    overall = _overall(parts, notes) if len(parts) > 1 else None
    if sum(len(part["variants"]) for part in parts) == 0:
        notes.append("no run has finished a game yet: there is nothing to compare")
    elif not any(len(part["variants"]) > 1 for part in parts):
        notes.append("no game has two kinds of runs: there is no rival to compare with")
    return {"confidence": CONFIDENCE, "games": parts, "overall": overall, "notes": notes}


def _game(game: str, variants: Sequence[Variant], notes: list[str]) -> dict[str, Any] | None:
    members = {variant.label: variant.on(game) for variant in variants if variant.on(game)}
    for label, runs in members.items():
        empty = [run.name for run in runs if "game/mean_return" not in run.curves]
        if empty:
            notes.append(
                f"{game}, {label}: {_some(empty)} finished no game yet and is left out of the "
                "comparison"
            )
        members[label] = [run for run in runs if "game/mean_return" in run.curves]
    members = {label: runs for label, runs in members.items() if runs}
    if not members:
        return None
    everyone = [run for runs in members.values() for run in runs]
    step = _common_step(game, everyone, notes)
    windows = sorted({run.config.training.solved_games for run in everyone})
    if len(windows) > 1:
        notes.append(
            f"{game}: scores are means of different numbers of games (solved_games): "
            f"{', '.join(map(str, windows))}"
        )
    scores = {label: [_score(run, step) for run in runs] for label, runs in members.items()}
    for label, runs in members.items():
        # A seed that ended alike is the same run again, and says nothing of the spread.
        kept = {(run.seed, score): run for run, score in zip(runs, scores[label], strict=True)}
        if len(kept) < len(runs):
            notes.append(
                f"{game}, {label}: {len(runs)} runs, of which {len(runs) - len(kept)} repeat "
                "another (the same seed and score) and are not counted: train with --seed"
            )
        members[label], scores[label] = list(kept.values()), [score for _, score in kept]
    rows: list[dict[str, Any]] = []
    for label, runs in members.items():
        row = _row(label, [scores[label]])
        row["scores"] = scores[label]
        row["seeds"] = [run.seed for run in runs]
        row["solved_at"] = _solved_at(runs)
        normal = human_normalised(game, row["iqm"])
        if normal is not None:
            row["human_normalised_iqm"] = normal
        if len(set(row["seeds"])) < len(runs):
            notes.append(f"{game}, {label}: several runs have the same seed")
        rows.append(row)
    if few := [label for label, runs in members.items() if len(runs) < LEAST_RUNS]:
        notes.append(
            f"{game}: too few seeds of {_some(few)}: fewer than {LEAST_RUNS} have no interval and "
            "no probability of improvement"
        )
    pairs = _pairs({label: [np.array(values)] for label, values in scores.items()}, game, notes)
    return {"environment": game, "at_step": int(step), "variants": rows, "improvement": pairs}


def _common_step(game: str, runs: Sequence[RunRecord], notes: list[str]) -> float:
    """Return the step at which scores are compared; note if a run's end or first game decides it.

    A solved run stopped because of its success. To cut the others at that step would hide what they
    learned later, so the solved run's last score is carried forward instead.
    """
    solved = [run for run in runs if run.state == "solved"]
    others = [run for run in runs if run.state != "solved"]
    step = min(map(_reached, others)) if others else max(map(_reached, runs))
    first = max(runs, key=_first_game)
    late = _first_game(first) > step
    if others and (longest := max(map(_reached, others))) > 1.02 * step:
        shortest = min(others, key=_reached)
        where = "" if late else f": compared at step {step:,.0f}, the length of {shortest.name}"
        notes.append(
            f"{game}: runs of different lengths, {step:,.0f} to {longest:,.0f} steps{where}"
        )
    if late:
        step = _first_game(first)
        notes.append(
            f"{game}: compared at step {step:,.0f}, where {first.name} finished its first game"
        )
    carried = [run.name for run in solved if _reached(run) < step]
    if carried:
        last = "its last score counts" if len(carried) == 1 else "their last scores count"
        notes.append(
            f"{game}: {_some(carried)} stopped early because solved: {last} up to step "
            f"{step:,.0f}; how soon a run was solved is not in its score, but in 'solved at step'"
        )
    return step


def _solved_at(runs: Sequence[RunRecord]) -> float | None:
    steps = [run.step if run.state == "solved" else np.inf for run in runs]
    median = float(np.median(steps))
    return median if np.isfinite(median) else None


def _reached(run: RunRecord) -> float:
    return float(max(run.step, run.curves["game/mean_return"].step[-1]))


def _first_game(run: RunRecord) -> float:
    return float(run.curves["game/mean_return"].first_step)


def _score(run: RunRecord, step: float) -> float:
    value = run.mean_return_at(step)
    assert value is not None, "the step is not before a run's first game"
    return value


def _row(label: str, strata: Sequence[Sequence[float]]) -> dict[str, Any]:
    together = [score for scores in strata for score in scores]
    return {
        "label": label,
        "runs": len(together),
        "mean": float(np.mean(together)),
        "iqm": interquartile_mean(together),
        "interval": bootstrap_interval(interquartile_means, strata, confidence=CONFIDENCE),
    }


def _pairs(
    scores: dict[str, list[np.ndarray]], where: str, notes: list[str]
) -> list[dict[str, Any]]:
    """Compare the variants that have enough runs in pairs; `scores` has an array for each game."""
    enough = [label for label in scores if sum(map(len, scores[label])) >= LEAST_RUNS]
    pairs = list(combinations(enough, 2))
    if len(pairs) > _MOST_PAIRS:
        notes.append(f"{where}: the first {_MOST_PAIRS} of {len(pairs)} pairs are compared")
    found: list[dict[str, Any]] = []
    for ours, theirs in pairs[:_MOST_PAIRS]:
        interval = bootstrap_interval(
            improvements, [*scores[ours], *scores[theirs]], confidence=CONFIDENCE
        )
        found.append(
            {
                "label": ours,
                "rival": theirs,
                "probability": probability_of_improvement(scores[ours], scores[theirs]),
                # If every run beats all rivals, the bootstrap has no spread: not a 95 % interval.
                "interval": interval if interval and interval[0] < interval[1] else None,
            }
        )
    return found


def _overall(parts: Sequence[dict[str, Any]], notes: list[str]) -> dict[str, Any] | None:
    """Compare the variants that played all games, by human-normalised scores over all games."""
    unknown = [
        part["environment"] for part in parts if human_normalised(part["environment"], 0.0) is None
    ]
    if unknown:
        notes.append(
            f"different games, and no reference scores for {_some(unknown)}: they are compared "
            "game by game and not together"
        )
        return None
    scores: dict[str, list[np.ndarray]] = {}
    for part in parts:
        for row in part["variants"]:
            normal = [human_normalised(part["environment"], score) for score in row["scores"]]
            scores.setdefault(row["label"], []).append(np.array(normal, np.float64))
    partial = [label for label, games in scores.items() if len(games) < len(parts)]
    if partial:
        notes.append(f"over all games: {_some(partial)} did not play all of them, and is left out")
    scores = {label: games for label, games in scores.items() if label not in partial}
    if not scores:
        return None
    rows = [_row(label, [one.tolist() for one in by_game]) for label, by_game in scores.items()]
    return {
        "games": len(parts),
        "unit": "human-normalised, percent",
        "variants": rows,
        "improvement": _pairs(scores, "over all games", notes),
    }


def _some(names: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
