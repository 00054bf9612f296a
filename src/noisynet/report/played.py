"""What a report plays by itself: evaluation games, and one that is filmed."""

from __future__ import annotations

import base64
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluation.agent import evaluate_run
from ..evaluation.video import Film, film, has_ffmpeg
from ..runs.errors import RunError
from .record import RunRecord

_SECONDS = 30
_QUALITIES = (28, 34, 40)


@dataclass(frozen=True)
class Clip:
    """Hold a film as a page carries it."""

    film: Film
    run: str
    kind: str
    """The media type."""
    base64: str


def evaluations(run: RunRecord, episodes: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Play games by the mean weights and, where there is noise, under it; say what could not be."""
    results: list[dict[str, Any]] = []
    noise_states = (False, True) if run.config.exploration.has_noise else (False,)
    for noise in noise_states:
        try:
            result = evaluate_run(run.path, episodes=episodes, noise=noise)
        except RunError as error:
            return results, [f"{run.name}: not evaluated: {error}"]
        results.append({"run": run.name, "seed_of_run": run.seed, **result})
    return results, []


def clip(run: RunRecord, most_bytes: int) -> tuple[Clip | None, list[str]]:
    """Film the first half minute of a game by the mean weights; None, and why, where it cannot be.

    `most_bytes` bounds the file; it is filmed again with less detail where it is larger.
    """
    if not has_ffmpeg():
        kind, media, qualities = ".gif", "image/gif", (0,)
    else:
        kind, media, qualities = ".mp4", "video/mp4", _QUALITIES
    section = run.config.environment
    per_second = 60 / section.frame_skip if section.is_atari else 30
    steps = round(_SECONDS * per_second) if kind == ".mp4" else 120
    with tempfile.TemporaryDirectory() as folder:
        for quality in qualities:
            out = Path(folder) / f"clip{kind}"
            try:
                made = film(run.path, out=out, steps=steps, quality=quality)
            except RunError as error:
                return None, [f"{run.name}: no film: {error}"]
            content = out.read_bytes()
            if len(content) <= most_bytes:
                coded = base64.b64encode(content).decode("ascii")
                return Clip(made, run.name, media, coded), []
    return None, [
        f"{run.name}: its film is larger than the page has room for; `noisynet watch` makes one"
    ]
