"""`noisynet runs`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import add_json, as_path, print_json
from .parser import Parser

if TYPE_CHECKING:
    from ..runs.record import RunRecord


def add_runs(runs: Parser) -> None:
    """Add the options of `runs`."""
    runs.description = "List the runs in a folder and in all folders below it."
    runs.add_argument(
        "folder",
        type=as_path,
        nargs="?",
        default=Path("runs"),
        metavar="FOLDER",
        help="the folder (default: runs)",
    )
    add_json(runs)
    runs.set_defaults(run=_runs)


def _runs(parsed: argparse.Namespace) -> int:
    from ..runs.errors import RunError
    from ..runs.record import find_runs, read_run

    listed: list[RunRecord] = []
    unreadable: list[str] = []
    for path in find_runs(parsed.folder):
        try:
            listed.append(read_run(path))
        except RunError as error:
            unreadable.append(str(error))
    if parsed.json:
        print_json(parsed, {"runs": [_plain(run) for run in listed], "unreadable": unreadable})
        return 0
    if listed:
        _print(listed, parsed.folder)
    else:
        print(f"{parsed.folder}: no runs")
    for said in unreadable:
        print(f"noisynet runs: {said}", file=sys.stderr)
    return 0


def _plain(run: RunRecord) -> dict[str, Any]:
    from ..report.groups import explores_by

    return {
        "path": str(run.path),
        "preset": run.config.preset,
        "environment": run.game,
        "explores_by": explores_by(run.config),
        "seed": run.seed,
        "state": run.state,
        "step": run.step,
        "steps": run.config.training.steps,
        "games": run.games,
        "mean_return": run.mean_return,
        "seconds": run.seconds,
        "damaged_lines": run.damaged,
    }


def _print(runs: list[RunRecord], root: Path) -> None:
    from ..report.groups import explores_by
    from ..report.tables import duration

    heads = ["run", "game", "explores by", "seed", "state", "step", "mean return", "time"]
    rows = [
        [
            str(run.path.relative_to(root)) if run.path != root else run.name,
            run.game,
            explores_by(run.config),
            str(run.seed),
            run.state,
            f"{run.step:,}",
            "-" if run.mean_return is None else f"{run.mean_return:.2f}",
            duration(run.seconds),
        ]
        for run in runs
    ]
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    for row in [heads, *rows]:
        texts = [text.ljust(width) for text, width in zip(row[:5], widths[:5], strict=True)]
        texts += [text.rjust(width) for text, width in zip(row[5:], widths[5:], strict=True)]
        print("  ".join(texts))
