"""The games that are played for a report: for an evaluation, and for films."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..evaluation.agent import evaluate_run, limit_note
from ..evaluation.film import Film, film, has_ffmpeg
from ..runs import RunError
from ..runs.record import RunRecord
from .groups import Variant
from .parts import section
from .tables import evaluation_table

_MOST_PLAYED = 4
_FILM_SECONDS = 30
_QUALITIES = (28, 34, 40)
# A smaller film would show too little to be worth making.
_LEAST_FILM_BYTES = 60_000


def played(
    kinds: Sequence[Variant],
    episodes: int,
    steps: int | None,
    film_bytes: int,
    notes: list[str],
    say: Callable[[str], object],
) -> str:
    """Evaluate the newest checkpoints, film some games, and return the HTML of both.

    The films together take at most `film_bytes`. `notes` collects what could not be shown, and
    `say` is called with each message about the progress.
    """
    everyone = [run for kind in kinds for run in kind.runs]
    if episodes == 0:
        notes.append("no game was played for this report: no evaluation, no film (--episodes 0)")
        return ""
    if len(everyone) > _MOST_PLAYED:
        notes.append(
            f"evaluation and film: the first run of each of at most {_MOST_PLAYED} configs plays, "
            f"not all {len(everyone)} runs"
        )
        everyone = [kind.runs[0] for kind in kinds[:_MOST_PLAYED]]
    results: list[dict[str, Any]] = []
    for run in everyone:
        say(f"Playing {episodes} game{'s' * (episodes != 1)} with {run.name} …")
        results += _evaluations(run, episodes, steps, notes, say)
    filmed = [kind.runs[0] for kind in kinds[:2]]
    most_bytes = film_bytes // len(filmed)
    if most_bytes < _LEAST_FILM_BYTES:
        notes.append("no film: the figures leave no room for one; `noisynet watch` makes it")
        filmed = []
    films = ""
    for run in filmed:
        say(f"Filming {run.name} …")
        films += _film(run, most_bytes, notes)
    about = (
        "Whole games from new seeds, as the newest checkpoint plays them, without learning or "
        "random actions: by the mean weights, and under a new draw of noise at every step. These "
        "are not the games of the scores in training, and their means may differ."
    )
    page = section("Evaluation", about, [evaluation_table(results)] if results else [])
    if films:
        page += f'<h2>The agent at play</h2><div class="pair">{films}</div>'
    return page


def _evaluations(
    run: RunRecord, episodes: int, steps: int | None, notes: list[str], say: Callable[[str], object]
) -> list[dict[str, Any]]:
    """Evaluate a run by its mean weights and, if it has noise, also under noise."""
    results: list[dict[str, Any]] = []
    for noise in (False, True) if run.config.exploration.has_noise else (False,):
        try:
            result = evaluate_run(run.path, episodes=episodes, noise=noise, steps=steps, tell=say)
        except RunError as error:
            notes.append(f"{run.name}: not evaluated: {error}")
            break
        if result["unplayed"]:
            notes.append(
                f"{run.name}, noise {result['noise']}: {result['unplayed']} of {episodes} games "
                "were not played, since one before them took too long (--steps)"
            )
        if (cut := limit_note(result)) is not None:
            notes.append(f"{run.name}, noise {result['noise']}: {cut}")
        results.append({"run": run.name, **result})
    return results


def _film(run: RunRecord, most_bytes: int, notes: list[str]) -> str:
    """Film the first half minute of a game by the mean weights, and return the HTML.

    A film of more than `most_bytes` is made again at a lower quality. The result is empty if no
    film can be made, or none that is small enough.
    """
    kind, media, qualities = ".mp4", "video/mp4", _QUALITIES
    if not has_ffmpeg():
        kind, media, qualities = ".gif", "image/gif", (0,)
    section = run.config.environment
    per_second = 60 / section.frame_skip if section.is_atari else 30
    steps = round(_FILM_SECONDS * per_second) if kind == ".mp4" else 120
    with tempfile.TemporaryDirectory() as folder:
        for quality in qualities:
            out = Path(folder) / f"clip{kind}"
            try:
                made = film(run.path, out=out, steps=steps, quality=quality)
            except RunError as error:
                notes.append(f"{run.name}: no film: {error}")
                return ""
            if out.stat().st_size <= most_bytes:
                return _film_html(run.name, made, media, out.read_bytes())
    notes.append(
        f"{run.name}: its film is larger than the page has room for; `noisynet watch` makes one"
    )
    return ""


def _film_html(run: str, made: Film, media: str, content: bytes) -> str:
    source = f"data:{media};base64,{base64.b64encode(content).decode('ascii')}"
    label = f"{run} plays {made.environment}"
    if media.startswith("image/"):
        shown = f'<img class="film" alt="{escape(label)}" src="{source}">'
    else:
        shown = (
            f'<video class="film" controls muted loop playsinline preload="auto" '
            f'aria-label="{escape(label)}" src="{source}"></video>'
        )
    end = "to its end" if made.ended else f"its first {made.steps:,} steps"
    said = f"{label}: {end}, return {made.game_return:g}, mean weights."
    if made.effective_epsilon is not None:
        said += (
            f" In {made.effective_epsilon:.1%} of the draws the noise would have chosen "
            "another action."
        )
    return f'<div>{shown}<p class="dim">{escape(said)}</p></div>'
