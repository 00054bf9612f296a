"""A report as one file of HTML that needs nothing else: no network, no folder beside it."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Sequence
from datetime import datetime
from html import escape
from pathlib import Path

from bokeh.embed import components
from bokeh.resources import Resources

from .. import __version__
from ..runs.errors import RunError
from .comparison import compare
from .groups import Variant, variants
from .record import RunRecord, read_run
from .sections import MOST_VARIANTS, Figures, compared, learning, made, noise, played

PAGE_BYTES = 5_000_000
"""A page stays below this."""

_MOST_NOTES = 40


def write_report(
    paths: Sequence[Path],
    out: Path,
    *,
    episodes: int = 5,
    tell: Callable[[str], object] | None = None,
) -> list[str]:
    """Write the report of runs into a file; give what it could not show, and why.

    Figures come from metrics.jsonl, read line by line. `episodes` games are played with each of up
    to 4 runs, and one game of up to 2 is filmed; with 0 nothing is played. `tell` hears what is
    being done. Raises RunError with one line where no run can be read or the file not written.
    """
    say = tell or (lambda _: None)
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
    notes += comparison["notes"]
    figures = Figures()
    sections = [
        learning(shown, figures, notes),
        compared(comparison, kinds, figures),
        noise(shown, figures, notes),
        played(shown, episodes, notes, say),
        made(kinds),
    ]
    text = _page(_title(kinds), notes, sections, figures)
    content = text.encode()
    if len(content) >= PAGE_BYTES:
        raise RunError(
            f"{out}: the page would take {len(content):,} bytes, expected fewer than "
            f"{PAGE_BYTES:,}: report fewer games or runs at once"
        )
    unfinished = out.with_name(f".unfinished-{out.name}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content)
        unfinished.replace(out)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise RunError(f"{out}: cannot be written: {error.strerror or error}") from error
    return notes


def _read(paths: Sequence[Path], notes: list[str]) -> list[RunRecord]:
    runs: list[RunRecord] = []
    unreadable: list[RunError] = []
    for path in dict.fromkeys(path.resolve() for path in paths):
        try:
            runs.append(read_run(path))
        except RunError as error:
            unreadable.append(error)
    if not runs:
        raise unreadable[0] if unreadable else RunError("RUN: got none, expected at least one")
    notes += [f"left out: {error}" for error in unreadable]
    for run in runs:
        if run.damaged:
            notes.append(
                f"{run.name}: {run.damaged} damaged line{'s' * (run.damaged != 1)} of "
                "metrics.jsonl skipped"
            )
        if run.state == "running":
            notes.append(
                f"{run.name} is still being written: this is its state at step {run.step:,}"
            )
        if run.state == "diverged":
            notes.append(f"{run.name}: its loss diverged; what it had learned before is shown")
    return runs


def _title(kinds: Sequence[Variant]) -> str:
    games = list(dict.fromkeys(game for kind in kinds for game in kind.games()))
    what = ", ".join(games) if len(games) <= 3 else f"{len(games)} games"
    against = (
        " against ".join(kind.label for kind in kinds)
        if len(kinds) <= 3
        else (f"{len(kinds)} configs")
    )
    return f"{what}: {against}"


def _page(title: str, notes: Sequence[str], sections: Sequence[str], figures: Figures) -> str:
    script, places = components(figures.all) if figures.all else ("", {})
    body = "".join(sections)
    for name, place in places.items():
        body = body.replace(f"{{{{{name}}}}}", place, 1)
    library = (
        Resources(mode="inline", components=["bokeh"], minified=True).render_js()
        if figures.all
        else ""
    )
    marker = '<div data-figures="yes"></div>' if figures.all else ""
    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z")
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{_file('page.css')}</style></head><body>"
        f"<h1>{escape(title)}</h1>"
        f'<p class="dim">noisynet {escape(__version__)}, {made}</p>'
        f"{_notes(notes)}{body}{marker}{library}{script}"
        f"<script>{_file('page.js')}</script></body></html>\n"
    )


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes[:_MOST_NOTES])
    if len(notes) > _MOST_NOTES:
        items += f"<li>and {len(notes) - _MOST_NOTES} more</li>"
    return (
        f'<details class="notes" {"open" if len(notes) <= 8 else ""}>'
        f"<summary>What to know, and what could not be shown ({len(notes)})</summary>"
        f"<ul>{items}</ul></details>"
    )


def _file(name: str) -> str:
    return (importlib.resources.files("noisynet.report") / name).read_text(encoding="utf-8")
