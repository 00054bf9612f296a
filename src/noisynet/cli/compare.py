"""`noisynet compare`."""

from __future__ import annotations

import argparse
from typing import Any

from .options import add_json, as_path, print_json
from .parser import Parser


def add_compare(compare: Parser) -> None:
    """Add the options of `compare`."""
    compare.description = (
        "Compare runs by their training scores. Runs whose configs differ only in the seed are one "
        "variant."
    )
    compare.add_argument("folders", type=as_path, nargs="+", metavar="RUN", help="runs' folders")
    add_json(compare)
    compare.set_defaults(run=_compare)


def _compare(parsed: argparse.Namespace) -> int:
    from ..report.comparison import compare
    from ..report.groups import variants
    from ..runs.record import distinct, named_apart, read_run

    runs = named_apart([read_run(path) for path in distinct(parsed.folders)])
    found = compare(variants(runs))
    found["notes"] += [note for run in runs for note in run.notes()]
    if parsed.json:
        print_json(parsed, found)
        return 0
    _print(found)
    return 0


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console

    # Plain: rich would print `games:Snake:` with a snake in it.
    console = Console(highlight=False, markup=False, emoji=False)
    for part in found["games"]:
        title = f"{part['environment']}: mean return of the last games, at step {part['at_step']:,}"
        _print_part(console, title, part)
    if found["overall"]:
        overall = found["overall"]
        _print_part(console, f"Over {overall['games']} games, {overall['unit']}", overall)
    for note in found["notes"]:
        console.print(f"Note: {note}", soft_wrap=True)


def _print_part(console: Any, title: str, part: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    console.print(title, soft_wrap=True)
    scores = Table(box=None, pad_edge=False)
    names = ["variant", "runs", "mean", "IQM", "95 % interval"]
    solved = any(row.get("solved_at") is not None for row in part["variants"])
    for name in [*names, "solved at step"] if solved else names:
        if name == "variant":
            scores.add_column(name, overflow="fold", min_width=len(name))
        else:
            scores.add_column(name, justify="right", no_wrap=True)
    for row in part["variants"]:
        cells = [Text(row["label"]), str(row["runs"]), f"{row['mean']:.2f}", f"{row['iqm']:.2f}"]
        cells.append(_said(row["interval"]))
        if solved:
            cells.append("-" if row["solved_at"] is None else f"{row['solved_at']:,.0f}")
        scores.add_row(*cells)
    console.print(scores)
    for pair in part["improvement"]:
        interval = "" if pair["interval"] is None else f", 95 % {_said(pair['interval'])}"
        console.print(
            f"P({pair['label']} above {pair['rival']}) = {pair['probability']:.2f}{interval}",
            soft_wrap=True,
        )


def _said(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"
