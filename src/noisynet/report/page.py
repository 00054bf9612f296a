"""A report as one self-contained HTML file, which needs no network and no other files."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from bokeh.document import Document
from bokeh.embed import components
from bokeh.resources import Resources

from .. import __version__
from ..disk import replace_file
from ..runs.errors import RunError, writing
from ..runs.record import RunRecord, distinct, named_apart, read_run
from . import parts
from .comparison import compare
from .groups import Variant, variants
from .headline import headline
from .parts import MOST_VARIANTS, Figures
from .played import played
from .plots import Detail

PAGE_BYTES = 5_000_000
"""The size that a page stays below."""

# The page contains all that it needs: nothing is fetched or sent, whatever a run's files put in.
# Bokeh needs `unsafe-eval` only to compile callbacks, and the page has none.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; media-src data:; font-src data:; base-uri 'none'; form-action 'none'"
)
_MOST_NOTES = 40
_MOST_FILM_BYTES = 2_200_000
# Reserved for the table of played games and the notes that are made while they are played.
_PLAYED_BYTES = 150_000

_DETAILS = (
    Detail(),
    Detail(single=False),
    Detail(single=False, points=80),
    Detail(single=False, points=40),
    Detail(single=False, points=20),
)
"""Levels of detail of the figures, tried in this order until a page without films fits."""


def write_report(
    paths: Sequence[Path],
    out: Path,
    *,
    episodes: int = 5,
    steps: int | None = None,
    opening: str = "",
    tell: Callable[[str], object] | None = None,
) -> list[str]:
    """Write a report on runs into a file; return notes, such as on what it could not show.

    Figures come from metrics.jsonl, read line by line. Up to 4 runs play `episodes` games each, of
    at most `steps` agent steps (by default 50,000), and one game of each of up to 2 runs is filmed;
    with `episodes=0` nothing is played. `opening` is HTML that is placed before the figures, such
    as the scores of a suite. `tell` is called with each message about the progress.

    To keep the page below PAGE_BYTES, films are made smaller or left out first, then lines of
    single runs are left out, then points of curves. Raises RunError with one line if no run can be
    read, if the page would still be too large (before anything is played), or if `out` does not
    end with .html or cannot be written.
    """
    say = tell or (lambda _: None)
    if out.is_dir():
        raise RunError(f"{out}: got a folder, expected the name of a page")
    if out.suffix.lower() not in (".html", ".htm"):  # config.yaml, say, would be lost
        raise RunError(f"--out: got {str(out)!r}, expected a name that ends with .html")
    notes: list[str] = []
    say(f"Reading {len(paths)} run{'s' * (len(paths) != 1)} …")
    runs = _read(paths, notes)
    kinds = variants(runs)
    shown = kinds[:MOST_VARIANTS]
    if len(kinds) > len(shown):
        notes.append(
            f"{len(kinds)} different configs: figures show the first {len(shown)}, tables all"
        )
    comparison = compare(kinds)
    if len(runs) > 1:
        notes += comparison["notes"]
    draft = _draft(out, kinds, comparison, notes, opening)
    # Base64 makes a film a third larger.
    room = (PAGE_BYTES - len(draft.text(draft.notes).encode()) - _PLAYED_BYTES) * 3 // 4
    notes = list(draft.notes)
    games = played(shown, episodes, steps, min(room, _MOST_FILM_BYTES), notes, say)
    content = draft.text(notes, games).encode()
    with writing(out):
        replace_file(out, content)
    return notes


def _read(paths: Sequence[Path], notes: list[str]) -> list[RunRecord]:
    runs: list[RunRecord] = []
    unreadable: list[RunError] = []
    for path in distinct(paths):
        try:
            runs.append(read_run(path))
        except RunError as error:
            unreadable.append(error)
    if not runs:
        raise unreadable[0] if unreadable else RunError("RUN: got none, expected at least one")
    notes += [f"left out: {error}" for error in unreadable]
    runs = named_apart(runs)
    notes += [note for run in runs for note in run.notes()]
    return runs


@dataclass(frozen=True)
class _Draft:
    """A page without the section on the games that are played for it."""

    title: str
    notes: list[str]
    top: str
    """The headline and the picture, before the notes."""
    above: str
    """Sections between the notes and the played games."""
    below: str
    """Sections after the played games, and the figures' script."""

    def text(self, notes: Sequence[str], games: str = "") -> str:
        """Return the HTML of the page; `games` is that of the played games."""
        made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z")
        return (
            "<!doctype html>\n"
            '<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<link rel="icon" href="data:,">'
            f"<title>{escape(self.title)}</title><style>{_file('page.css')}</style></head><body>"
            f"<h1>{escape(self.title)}</h1>"
            f'<p class="dim">noisynet {escape(__version__)}, {made}</p>'
            f"{self.top}{_notes(notes)}{self.above}{games}{self.below}"
            f"<script>{_file('page.js')}</script></body></html>\n"
        )


def _draft(
    out: Path,
    kinds: Sequence[Variant],
    comparison: dict[str, Any],
    notes: Sequence[str],
    opening: str,
) -> _Draft:
    """Build figures and tables in as much detail as the page has room for."""
    most = PAGE_BYTES - _PLAYED_BYTES
    size = 0
    for detail in _DETAILS:
        draft = _draft_with(detail, kinds, comparison, notes, opening)
        size = len(draft.text(draft.notes).encode())
        if size < most:
            return draft
    raise RunError(
        f"{out}: the page would take {size:,} bytes without films, expected fewer than {most:,}: "
        "report fewer games or runs at once"
    )


def _draft_with(
    detail: Detail,
    kinds: Sequence[Variant],
    comparison: dict[str, Any],
    notes: Sequence[str],
    opening: str,
) -> _Draft:
    shown, notes = kinds[:MOST_VARIANTS], list(notes)
    figures = Figures(shown)
    if detail != Detail():
        less = "" if detail.points == Detail().points else f", and {detail.points} points of a mean"
        notes.append(
            f"to stay below {PAGE_BYTES / 1e6:g} MB, figures show means without single runs{less}"
        )
    title = _title(kinds)
    top = headline(kinds, comparison, totals=bool(opening)) + opening
    top += parts.learning_curves(shown, figures, notes, detail)
    above = parts.comparison(comparison, kinds, figures)
    below = (
        parts.losses(shown, figures, detail)
        + parts.noise(shown, figures, notes, detail)
        + parts.units(shown, figures, notes, detail)
        + parts.returns_by_noise(shown, figures, notes)
        + parts.configs_and_versions(kinds)
    )
    if figures.all:
        document = Document()
        with document.models.freeze():  # else Bokeh goes through all models again for each root
            for figure in figures.all.values():
                document.add_root(figure)
        script, places = components(figures.all)
        library = Resources(mode="inline", components=["bokeh"], minified=True).render_js()
        top, above, below = (_filled(part, places) for part in (top, above, below))
        below += f'<div data-figures="yes"></div>{library}{script}'
    return _Draft(title, notes, top, above, below)


def _filled(part: str, places: Mapping[str, str]) -> str:
    """Replace each figure's placeholder with the figure's HTML."""
    for name, place in places.items():
        part = part.replace(f"{{{{{name}}}}}", place, 1)
    return part


def _title(kinds: Sequence[Variant]) -> str:
    games = list(dict.fromkeys(game for kind in kinds for game in kind.games()))
    what = ", ".join(games) if len(games) <= 3 else f"{len(games)} games"
    against = (
        " against ".join(kind.label for kind in kinds)
        if len(kinds) <= 3
        else (f"{len(kinds)} configs")
    )
    return f"{what}: {against}"


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes[:_MOST_NOTES])
    if len(notes) > _MOST_NOTES:
        items += f"<li>and {len(notes) - _MOST_NOTES} more</li>"
    return (
        f'<details class="notes" {"open" if len(notes) <= 8 else ""}>'
        f"<summary>Notes, and what could not be shown ({len(notes)})</summary>"
        f"<ul>{items}</ul></details>"
    )


def _file(name: str) -> str:
    return (importlib.resources.files("noisynet.report") / name).read_text(encoding="utf-8")
