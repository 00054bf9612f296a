"""`noisynet suite`."""

from __future__ import annotations

import argparse
import sys
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import add_json, as_path, print_json
from .parser import Parser

if TYPE_CHECKING:
    from ..suite.plan import Plan


def add_suite(suite: Parser) -> None:
    """Add the options of `suite`."""
    suite.description = (
        "Train the trials of a suite on Ray. After an interruption, repeat the command to continue."
    )
    suite.add_argument(
        "file", metavar="FILE", help="a YAML file, or a suite's name, such as atari100k"
    )
    suite.add_argument(
        "--out",
        type=as_path,
        metavar="FOLDER",
        help="the folder (default: runs/ and the suite's name)",
    )
    suite.add_argument(
        "--ray", metavar="ADDRESS", help="HOST:PORT of a Ray cluster (default: this machine)"
    )
    suite.add_argument("--dry-run", action="store_true", help="list the trials and start nothing")
    suite.add_argument(
        "--yes",
        action="store_true",
        help="start a large suite, whose cost is otherwise only estimated",
    )
    add_json(suite)
    suite.set_defaults(run=_suite)


def _suite(parsed: argparse.Namespace) -> int:
    from ..suite.file import SuiteErrors

    try:
        return _checked(parsed)
    except SuiteErrors as error:
        for problem in error.problems:
            print(f"noisynet suite: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        # It came before the trials began, after they ended, or a second time while they saved.
        print("noisynet suite: interrupted; repeat the command to continue", file=sys.stderr)
        return 130


def _checked(parsed: argparse.Namespace) -> int:
    from rich.console import Console

    from ..runs.errors import RunError
    from ..suite.cost import LARGE_STEPS
    from ..suite.display import SuiteDisplay
    from ..suite.plan import plan, run

    planned = plan(parsed.file, parsed.out)
    if parsed.dry_run:
        return _list(planned, parsed)
    # With --json, nothing but the object may go to standard output.
    display = SuiteDisplay(Console(stderr=parsed.json))
    if planned.steps >= LARGE_STEPS:
        for line in _estimate(planned, parsed.ray):
            display.say(line)
        if not parsed.yes:
            raise RunError(f"{parsed.file}: large as estimated above: --yes starts it")
    summary = run(planned, parsed.ray, display)
    if not summary["interrupted"] and summary["runs"]:
        summary["report"] = _report(summary, planned.folder / "report.html", display.say)
    if parsed.json:
        print_json(parsed, summary)
    else:
        _print(summary)
    if summary["interrupted"]:
        return 130
    return 1 if summary["failed"] else 0


def _estimate(planned: Plan, address: str | None) -> list[str]:
    """Measure on this machine, and return lines of text that estimate a suite's cost."""
    from ..assemble.resolve import local_cpus
    from ..suite.cost import estimate, measure

    suite = planned.suite
    at_once = None if address else local_cpus() // suite.resources.cpus
    if suite.search is not None:
        at_once = at_once and min(at_once, suite.search.concurrent * len(planned.trials))
    speeds = measure(planned.trials)
    left = planned.steps_left()
    return estimate(planned.trials, left, speeds, at_once=at_once, points=planned.points)


def _list(planned: Plan, parsed: argparse.Namespace) -> int:
    from ..suite.cost import LARGE_STEPS, frames_of

    left = planned.steps_left()
    rows = [
        {
            "trial": trial.name,
            "environment": trial.game,
            "label": trial.label,
            "seed": trial.seed,
            "steps": trial.config.training.steps,
            "steps_left": left[trial.name],
        }
        for trial in planned.trials
    ]
    if parsed.json:
        listed = {"suite": planned.name, "folder": str(planned.folder), "steps": planned.steps}
        print_json(parsed, {**listed, "trials": rows})
        return 0
    width = max(len(row["trial"]) for row in rows)
    for row in rows:
        done = row["steps"] - row["steps_left"]
        state = f", {done:,} done" if done else ""
        print(f"{row['trial']:<{width}}  {row['environment']}  {row['steps']:,} steps{state}")
    frames = planned.points * frames_of(
        planned.trials, {row["trial"]: row["steps"] for row in rows}
    )
    size = f"{planned.steps:,} steps" + (f" ({frames:,} frames)" if frames else "")
    if planned.suite.search is None:
        print(f"{len(rows)} trial{'s' * (len(rows) != 1)}, {size}, in {planned.folder}")
    else:
        print(f"A corner of the search; {planned.points} points, {size} in all")
    if planned.steps >= LARGE_STEPS:
        print("Large: without --dry-run its time is estimated first, and --yes starts it")
    return 0


def _report(summary: dict[str, Any], out: Path, tell: Any) -> str | None:
    """Write a report with the suite's scores at its top; return its path, None if it failed."""
    from ..runs.errors import RunError

    try:
        from ..report.page import write_report

        runs = [Path(run) for run in summary["runs"]]
        write_report(runs, out, episodes=0, opening=_html(summary))
    except ImportError as error:
        from ..extras import install_command

        tell(f"Note: no report: needs {error.name}: {install_command('train')}")
    except RunError as error:
        tell(f"Note: no report: {error}")
    else:
        return str(out)
    return None


_GAMES = {
    "environment": "game", "label": "trials", "noise": "noise", "runs": "runs", "mean": "mean",
    "iqm": "IQM", "iqm_interval": "95 %", "human_normalised": "human %",
    "minutes": "minutes", "noise_share": "noise's share",
}  # fmt: skip
_OVERALL = {
    "label": "trials", "games": "games", "runs": "runs", "median": "median",
    "median_interval": "95 %", "mean": "mean", "mean_interval": "95 %",
    "mean_as_printed": "mean as the paper's", "iqm": "IQM", "iqm_interval": "95 %",
    "minutes": "minutes", "noise_share": "noise's share",
}  # fmt: skip
_ABOUT = (
    "A score is the mean return of games that a trial's agent played when its training had ended: "
    "with noise off by its mean weights, with noise on under a new draw at every step. The "
    "Comparison below has the last games of training instead, which were played while the agent "
    "explored and learned, so it may put the variants in another order."
)
_NOTE = (
    "Video Pinball's random score is 16256.9; the means that the paper prints take it as 0, as the "
    "column “mean as the paper's” does."
)


def _has_video_pinball(summary: dict[str, Any]) -> bool:
    return any("VideoPinball" in row["environment"] for row in summary["games"])


def _tables(summary: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return (title, heads, rows) of each table that has any rows."""
    from ..suite.published import PUBLISHED

    overall, points = summary["overall"], summary["search"] or []
    games = dict(_GAMES)
    if not overall:
        del games["human_normalised"]
    if summary["published"]:
        for table in PUBLISHED.values():
            games |= {f"published_{agent}": name for agent, name in table.agents.items()}
    known = {name for row in summary["games"] for name in row}
    games = {name: head for name, head in games.items() if name in known}
    tables: list[tuple[str, dict[str, str], list[dict[str, Any]]]] = [
        ("Scores: mean returns of the evaluation's games", games, summary["games"]),
        (
            "Over all games, human-normalised, percent",
            _OVERALL,
            [*overall, *summary["published"]] if overall else [],
        ),
        (
            "The search's points, the best first",
            {name: name for point in points[:1] for name in point if name != "trials"},
            points,
        ),
    ]
    return [
        (title, list(heads.values()), [[_cell(row.get(name)) for name in heads] for row in rows])
        for title, heads, rows in tables
        if rows
    ]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return f"{value[0]:.2f} to {value[1]:.2f}"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def _html(summary: dict[str, Any]) -> str:
    from ..report.tables import table

    parts = [
        f"<h2>{escape(title)}</h2>{table(heads, rows, long=[1])}"
        for title, heads, rows in _tables(summary)
    ]
    parts.insert(1, f'<p class="dim">{escape(_ABOUT)}</p>')
    if _has_video_pinball(summary):
        parts.append(f'<p class="dim">{escape(_NOTE)}</p>')
    failed = "".join(f"<li>{escape(f'{n}: {why}')}</li>" for n, why in summary["failed"].items())
    return f"<section>{''.join(parts)}{f'<ul>{failed}</ul>' if failed else ''}</section>"


def _print(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False)

    def line(text: str) -> None:
        console.print(text, soft_wrap=True)

    if summary["interrupted"]:
        line(f"Stopped: {summary['done']} trials done. Repeat the command to continue.")
        return
    for title, heads, rows in _tables(summary):
        line(title)
        table = Table(box=None, pad_edge=False)
        for head in heads:
            table.add_column(head, justify="left" if head in ("game", "trials") else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    if _has_video_pinball(summary):
        line(f"Note: {_NOTE}")
    for name, reason in summary["failed"].items():
        line(f"Failed: {name}: {reason}")
    line(f"{summary['done']} of {summary['trials']} trials done, in {summary['folder']}")
    if summary.get("report"):
        line(f"Report: {summary['report']}")
