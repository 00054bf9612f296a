"""The last lines that `train` and `resume` print, and their exit status."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import print_json, say

if TYPE_CHECKING:
    from ..training import Outcome

_EXIT_INTERRUPTED = 130


def run_and_report(
    parsed: argparse.Namespace, run: Callable[[], Outcome], folder: Callable[[], Path | None]
) -> int:
    """Call `run`, report how the training ended, and return the exit status.

    `folder` returns the run's folder, or None before it has one. It is needed when an interrupt
    comes before or after the training loop.
    """
    try:
        outcome = run()
    except KeyboardInterrupt:
        return _interrupted(parsed, folder())
    if parsed.json:
        print_json(parsed, _as_json(outcome))
        return _EXIT_INTERRUPTED if outcome.reason == "interrupted" else 0
    return _said(outcome)


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "folder": str(outcome.folder),
        "reason": outcome.reason,
        "step": outcome.step,
        "mean_return": outcome.mean_return,
        "trained": not outcome.before,
    }


def _said(outcome: Outcome) -> int:
    mean = (
        "no game finished"
        if outcome.mean_return is None
        else f"mean return {outcome.mean_return:.2f}"
    )
    if outcome.before:
        solved = outcome.reason == "solved"
        extend = f"{_command()} resume {shlex.quote(str(outcome.folder))} --steps N"
        say(
            f"Nothing to do: the run {'was solved' if solved else 'ended'} at step "
            f"{outcome.step:,}, {mean}. `{extend}` trains it to N steps"
            f"{', solved or not' if solved else ''}."
        )
        return 0
    ends = {
        "solved": f"Solved at step {outcome.step:,}: {mean}.",
        "steps": f"Done: {outcome.step:,} steps, {mean}.",
        "interrupted": f"Stopped at step {outcome.step:,} and saved.",
    }
    say(ends[outcome.reason])
    if outcome.reason == "interrupted":
        return _go_on(outcome.folder)
    say(f"Play it: {_command()} evaluate {shlex.quote(str(outcome.folder))}")
    return 0


def _interrupted(parsed: argparse.Namespace, folder: Path | None) -> int:
    """Report on a run that was interrupted outside of its training loop, or twice within it."""
    from ..runs import checkpoint

    begun = folder is not None and (folder / "config.yaml").exists()
    step = checkpoint.newest_step(folder / "checkpoints") if folder is not None and begun else None
    if parsed.json:
        where = str(folder) if begun else None
        found = {"folder": where, "reason": "interrupted", "step": step, "mean_return": None}
        print_json(parsed, {**found, "trained": begun})
        return _EXIT_INTERRUPTED
    if folder is None or not begun:
        say("Stopped before the run began: there is nothing to resume.")
        return _EXIT_INTERRUPTED
    if step is None:
        say("Stopped before the first checkpoint.")
    else:
        say(f"Stopped; saved at step {step:,}.")
    return _go_on(folder)


def _go_on(folder: Path) -> int:
    say(f"Continue with: {_command()} resume {shlex.quote(str(folder))}")
    return _EXIT_INTERRUPTED


def _command() -> str:
    """Return what to type for this program: `noisynet`, or its path if it is not on PATH."""
    if shutil.which("noisynet") is None and Path(sys.argv[0]).name == "noisynet":
        return shlex.quote(os.path.relpath(sys.argv[0]))
    return "noisynet"
