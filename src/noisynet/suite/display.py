"""The progress of a suite while it runs: a live table on a terminal, else plain lines."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

_MOST_SHOWN = 12
_LINE_SECONDS = 30.0


@dataclass(frozen=True)
class Status:
    """The state of one trial, and its progress in agent steps."""

    state: str
    """queued, running, done or failed."""
    step: int
    steps: int
    """The steps that the config asks for; a run that is solved ends earlier."""


class Pace:
    """An estimate of the time left, by the steps taken since `left` was first called."""

    def __init__(self) -> None:
        self._began: tuple[float, int] | None = None

    def left(self, trials: Mapping[str, Status]) -> float | None:
        """Return the seconds left; None until a step has been taken."""
        taken = sum(one.steps if one.state == "done" else one.step for one in trials.values())
        missing = sum(
            max(one.steps - one.step, 0)
            for one in trials.values()
            if one.state in ("queued", "running")
        )
        now = time.monotonic()
        if self._began is None:
            self._began = now, taken
        then, before = self._began
        if taken <= before:
            return None
        return missing * (now - then) / (taken - before)


def duration(seconds: float | None) -> str:
    """Format a time as days and h:mm:ss; from a hundred days on, as days alone."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days >= 100:
        return f"{days:,} d"
    clock = f"{hours}:{minutes:02}:{rest:02}"
    return f"{days} d {clock}" if days else clock


class SuiteDisplay:
    """A display, on a console, of the trials done, running and failed, and of the time left."""

    def __init__(self, console: Console) -> None:
        """Draw a live table on a terminal, and print lines anywhere else."""
        self._console = console
        self._pace = Pace()
        self._live: Live | None = None
        self._last_line = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text, soft_wrap=True, markup=False, emoji=False, highlight=False)

    def show(self, trials: Mapping[str, Status]) -> None:
        """Show where the trials are now."""
        left = self._pace.left(trials)
        if self._console.is_terminal:
            if self._live is None:
                self._live = Live(console=self._console, auto_refresh=False)
                self._live.start()
            self._live.update(self._table(trials, left), refresh=True)
        elif time.monotonic() - self._last_line >= _LINE_SECONDS:
            self._last_line = time.monotonic()
            self.say(summary(trials, left))

    def close(self) -> None:
        """Stop the live table; its last state stays on the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _table(self, trials: Mapping[str, Status], left: float | None) -> Group:
        table = Table(box=None, pad_edge=False)
        table.add_column("trial", no_wrap=True)
        table.add_column("state")
        table.add_column("steps", justify="right")
        moving = {name: one for name, one in trials.items() if one.state in ("running", "failed")}
        for name, one in list(moving.items())[:_MOST_SHOWN]:
            table.add_row(name, one.state, f"{one.step:,} of {one.steps:,}")
        if len(moving) > _MOST_SHOWN:
            table.add_row(f"and {len(moving) - _MOST_SHOWN} more", "", "")
        # As a title of the table, the summary would wrap at the width of the columns.
        return Group(summary(trials, left), table)


def summary(trials: Mapping[str, Status], left: float | None) -> str:
    """Return the progress of a suite in one line."""
    count = Counter(one.state for one in trials.values())
    return (
        f"{count['done']} of {len(trials)} trials done, {count['running']} running, "
        f"{count['queued']} waiting, {count['failed']} failed, about {duration(left)} left"
    )
