"""`noisynet report`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options import add_json, add_steps, as_path, not_negative, print_json
from .parser import Parser
from .trust import add_trust, check_trust


def add_report(report: Parser) -> None:
    """Add the options of `report`."""
    report.description = "Write one HTML page about runs, with games that they play for it."
    report.add_argument("folders", type=as_path, nargs="+", metavar="RUN", help="runs' folders")
    report.add_argument(
        "--out",
        type=as_path,
        metavar="FILE",
        help="an .html file (default: report.html in the run, or here for several runs)",
    )
    report.add_argument(
        "--episodes",
        type=not_negative,
        default=5,
        metavar="N",
        help="games that each of up to 4 runs plays for it; 0: no games, no film (default: 5)",
    )
    add_steps(report)
    add_json(report)
    add_trust(report)
    report.set_defaults(run=_report)


def _report(parsed: argparse.Namespace) -> int:
    check_trust(parsed.folders, trust=parsed.trust)
    from ..extras import install_command
    from ..runs.errors import RunError

    try:
        from ..report.page import write_report
    except ImportError as error:
        raise RunError(f"needs {error.name}: {install_command('train')}") from None
    folders: list[Path] = parsed.folders
    out: Path = parsed.out or (folders[0] if len(folders) == 1 else Path()) / "report.html"
    notes = write_report(
        folders,
        out,
        episodes=parsed.episodes,
        steps=parsed.steps,
        tell=lambda said: print(said, flush=True),
    )
    if parsed.json:
        size = out.stat().st_size
        print_json(parsed, {"path": str(out.resolve()), "bytes": size, "notes": notes})
        return 0
    for note in notes:
        print(f"Note: {note}")
    print(f"Report: {out.resolve()} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0
