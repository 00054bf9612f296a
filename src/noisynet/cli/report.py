"""`noisynet report`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .options import add_steps, as_path, seed
from .trust import add_trust, check_trust


def add_report(commands: Any) -> None:
    """Add `report`."""
    report = commands.add_parser(
        "report", help="write one HTML page about runs", allow_abbrev=False
    )
    report.add_argument("folders", type=as_path, nargs="+", metavar="RUN", help="runs' folders")
    report.add_argument(
        "--out",
        type=as_path,
        metavar="FILE",
        help="the page (default: report.html in the run, or here for several runs)",
    )
    report.add_argument(
        "--episodes",
        type=seed,
        default=5,
        metavar="N",
        help="games that each of up to 4 runs plays for it; 0: none, and no film",
    )
    add_steps(report)
    add_trust(report)
    report.set_defaults(run=_report)


def _report(parsed: argparse.Namespace) -> int:
    check_trust(parsed.folders, trust=parsed.trust)
    from ..runs.errors import RunError

    try:
        from ..report.page import write_report
    except ImportError as error:
        raise RunError(f"needs {error.name}: pip install 'noisynet[train]'") from None
    folders: list[Path] = parsed.folders
    out: Path = parsed.out or (folders[0] if len(folders) == 1 else Path()) / "report.html"
    notes = write_report(
        folders,
        out,
        episodes=parsed.episodes,
        steps=parsed.steps,
        tell=lambda said: print(said, flush=True),
    )
    for note in notes:
        print(f"Note: {note}")
    print(f"Report: {out.resolve()} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0
