"""The top of a page: the results of the runs in a few large numbers and a sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from ..runs.record import RunRecord
from .comparison import LEAST_RUNS
from .groups import Variant
from .plots import style
from .tables import duration, formatted, interval_text

_MOST_CARDS = 6


def headline(kinds: Sequence[Variant], found: dict[str, Any], *, totals: bool = False) -> str:
    """Build a card for each variant of each game; cards of totals if asked, or if they are many."""
    groups = [(index, game) for index, kind in enumerate(kinds) for game in kind.games()]
    if totals or len(groups) > _MOST_CARDS:
        return f'<div class="cards">{_totals([run for kind in kinds for run in kind.runs])}</div>'
    parts = {part["environment"]: part for part in found["games"]}
    cards = ""
    for index, game in groups:
        label, part = kinds[index].label, parts.get(game)
        row = (
            next((row for row in part["variants"] if row["label"] == label), None) if part else None
        )
        name = label if len({game for _, game in groups}) == 1 else f"{game}: {label}"
        lines = _score(kinds[index].on(game), row, part["at_step"] if part else 0)
        cards += _card(name, *lines, colour=style(index)[0])
    return f'<div class="cards">{cards}</div>{_verdict(found)}'


def _card(name: str, large: str, *lines: str, colour: str = "") -> str:
    mark = f'<span class="mark" style="background:{colour}"></span>' if colour else ""
    rest = "".join(f"<div>{escape(line)}</div>" for line in lines if line)
    return (
        f'<div class="card"><div class="name">{mark}{escape(name)}</div>'
        f'<div class="large">{escape(large)}</div>{rest}</div>'
    )


def _score(runs: Sequence[RunRecord], row: dict[str, Any] | None, at_step: int) -> list[str]:
    """Return a card's lines: the score, what it measures, whether solved, steps and time."""
    training = runs[0].config.training
    several = f"{len(runs)} runs" if len(runs) > 1 else ""
    if row is None:
        lines = ["–", f"no finished game yet{several and f' in {several}'}"]
    else:
        games = f"the last {training.solved_games} training games"
        if any(run.step > at_step for run in runs):
            games += f", or of as many as there were, at step {at_step:,}"
        elif min(run.games for run in runs) < training.solved_games:
            games = f"all {runs[0].games} training games" if len(runs) == 1 else f"{games} at most"
        what = f"interquartile mean of {row['runs']} runs: " if row["runs"] > 1 else ""
        lines = [formatted(float(row["iqm"])), f"{what}mean return of {games}"]
        lines += [f"95 %: {interval_text(row['interval'])}"] if row["interval"] else []
    if solved := _solved(runs):
        lines.append(solved)
    steps, seconds = (
        float(np.median([getattr(run, name) for run in runs])) for name in ("step", "seconds")
    )
    lines.append(
        f"{steps:,.0f} steps in {duration(seconds)}{several and f', the median of {several}'}"
    )
    return lines


def _solved(runs: Sequence[RunRecord]) -> str:
    """Return in words whether runs with a goal were solved, and how many are in which state."""
    states = Counter(run.state for run in runs)
    solved, goal = states.pop("solved", 0), runs[0].config.training.solved_return
    states.pop("finished", None)
    parts = [state if len(runs) == 1 else f"{count} {state}" for state, count in states.items()]
    if goal is not None or solved:
        steps = [run.step for run in runs if run.state == "solved"]
        at = f" at step {np.median(steps):,.0f}" if steps else ""
        if len(runs) == 1:
            verdict = f"solved{at}" if solved else "not solved"
        else:
            verdict = f"{solved} of {len(runs)} solved{at and f',{at} in the median'}"
        parts.insert(0, f"{verdict} (goal {goal:g})" if goal is not None else verdict)
    return ", ".join(parts)


def _totals(runs: Sequence[RunRecord]) -> str:
    states = Counter(run.state for run in runs)
    games = len({run.game for run in runs})
    return (
        _card("runs", f"{len(runs):,}", ", ".join(f"{n} {state}" for state, n in states.items()))
        + _card("games", f"{games:,}")
        + _card("agent steps", f"{sum(run.step for run in runs):,}", "of all runs together")
        + _card("training time", duration(sum(run.seconds for run in runs)), "of all runs together")
    )


def _verdict(found: dict[str, Any]) -> str:
    """Return a sentence on whether the runs tell two variants apart; empty unless there are two."""
    parts = [found["overall"]] if found["overall"] else found["games"]
    if len(parts) != 1 or len(parts[0]["variants"]) != 2:
        return ""
    ours, theirs = (row["label"] for row in parts[0]["variants"])
    if not parts[0]["improvement"]:
        text = (
            f"Too few runs to say whether {ours} or {theirs} is better: it takes at least "
            f"{LEAST_RUNS} seeds of each."
        )
    else:
        (pair,) = parts[0]["improvement"]
        interval = pair["interval"]
        text = (
            f"A run of {ours} scores higher than one of {theirs} with a probability of "
            f"{pair['probability']:.2f}"
        )
        text += f" (95 %: {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
        apart = interval and not interval[0] <= 0.5 <= interval[1]
        text += "." if apart else ": these runs do not tell the two apart."
        if pair["probability"] in (0, 1):
            better, worse = (ours, theirs) if pair["probability"] else (theirs, ours)
            text = f"Every run of {better} scores higher than every run of {worse}."
    return f'<p class="verdict">{escape(text)}</p>'
