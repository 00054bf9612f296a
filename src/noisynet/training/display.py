"""The display of a run that trains: a live table, or plain lines without a terminal."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..runs.config import Config
from .events import (
    CheckpointDue,
    Event,
    FiguresTaken,
    GameFinished,
    TrainingEnded,
    WorkerRestarted,
)

LINE_SECONDS = 1.0
"""Shortest time between two plain lines: small games end a hundred times a second."""
SILENT_SECONDS = 10.0
"""Time without a finished game after which a plain line is printed all the same."""


def make_display(console: Console) -> PlainDisplay | LiveDisplay:
    """Return a live display for a terminal, plain lines for anything else."""
    return LiveDisplay(console) if console.is_terminal else PlainDisplay(console)


class _Pace:
    """A run's step, its speed over the last half minute or so, and the time left."""

    def __init__(self, config: Config, step: int) -> None:
        self._total = config.training.steps
        self._marks = [(time.perf_counter(), step)]
        # A run with a goal may reach it before its last step.
        self._at_most = "" if config.training.solved_return is None else " at most"
        section = config.environment
        self._frames = section.frame_skip if section.is_atari else 0
        self.step = step
        self.speed = 0.0
        """Steps a second."""

    def at(self, step: int) -> None:
        """Take a new step into account."""
        now = time.perf_counter()
        if now - self._marks[-1][0] >= 1:
            self._marks = [*self._marks[-29:], (now, step)]
        then, before = self._marks[0]
        self.step, self.speed = step, (step - before) / max(now - then, 1e-9)

    def steps(self) -> str:
        """Return the steps taken and the steps in all, as text."""
        frames = f" ({self.step * self._frames:,} frames)" if self._frames else ""
        return f"{self.step:,} of {self._total:,}{frames}"

    def left(self) -> str:
        """Return the estimated time left, as text."""
        if self.speed <= 0:
            return "time left unknown"
        return f"{_duration((self._total - self.step) / self.speed)} left{self._at_most}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(max(int(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _restarted(event: WorkerRestarted) -> str:
    return f"worker {event.worker} started again: {event.reason}"


class _Display:
    """A display on a console."""

    def __init__(self, console: Console) -> None:
        """Print to a console."""
        self._console = console

    def preparing(self, what: str) -> None:
        """Print what is measured before training begins."""
        with suppress(OSError, SystemExit):  # the session ends the run in good order
            self._line(f"{what[:1].upper()}{what[1:]} …")

    def _line(self, text: str) -> None:
        # Plain: rich would print `games:Snake:` with a snake in it.
        self._console.print(text, soft_wrap=True, markup=False, emoji=False, highlight=False)


class PlainDisplay(_Display):
    """A display of plain lines about finished games, at most one a second."""

    def __init__(self, console: Console) -> None:
        """Print to a console."""
        super().__init__(console)
        self._loss: float | None = None
        self._printed = 0.0

    def started(self, folder: Path, config: Config, step: int, notes: list[str]) -> None:
        """Print the environment, the folder and the notes."""
        self._pace = _Pace(config, step)
        self._line(
            f"Training {config.environment.environment} in {folder}: step {self._pace.steps()}"
        )
        for note in notes:
            self._line(f"Note: {note}")
        self._printed = time.monotonic() - LINE_SECONDS

    def on_event(self, event: Event, elapsed: float) -> None:
        """Print a line about a finished game, a long silence or a replaced worker."""
        self._pace.at(event.step)
        silent = time.monotonic() - self._printed
        if isinstance(event, GameFinished) and silent >= LINE_SECONDS:
            game = f"Game {event.game:,}: return {event.game_return:g}"
            length = f"{event.game_steps:,} steps"
            games = "1 game" if event.games == 1 else f"{event.games} games"
            mean = f"mean return {event.mean_return:.2f} of {games}"
            self._figures([f"{game} in {length}", mean], elapsed)
        elif isinstance(event, FiguresTaken):
            self._loss = event.figures.get("loss", self._loss)
            if silent >= SILENT_SECONDS:
                self._figures([f"No game ended in the last {silent:.0f} s"], elapsed)
        elif isinstance(event, WorkerRestarted):
            self._line(f"Note: {_restarted(event)}")

    def closed(self) -> None:
        """Do nothing: the lines stay."""

    def _figures(self, first: list[str], elapsed: float) -> None:
        self._printed = time.monotonic()
        loss = "none yet" if self._loss is None else f"{self._loss:.4g}"
        pace = self._pace
        parts = [
            *first,
            f"loss {loss}",
            f"step {pace.steps()}",
            f"{pace.speed:,.0f} steps/s",
            f"{_duration(elapsed)} so far",
            pace.left(),
        ]
        self._line(", ".join(parts))


class LiveDisplay(_Display):
    """A live bar and table: progress, returns, speed, SNR per layer, effective ε."""

    def __init__(self, console: Console) -> None:
        """Draw on a console."""
        super().__init__(console)
        self._live: Live | None = None
        self._rows: dict[str, str] = {}

    def started(self, folder: Path, config: Config, step: int, notes: list[str]) -> None:
        """Show the empty table, under the notes."""
        self._config = config
        self._pace = _Pace(config, step)
        for note in notes:
            self._line(f"Note: {note}")
        self._rows = {
            "run": str(folder),
            "environment": config.environment.environment,
            "exploration": config.exploration.exploration,
            "step": self._pace.steps(),
        }
        self._live = Live(self._picture(), console=self._console, refresh_per_second=4)
        self._live.start()

    def on_event(self, event: Event, elapsed: float) -> None:
        """Update the bar and the table."""
        rows, pace = self._rows, self._pace
        pace.at(event.step)
        rows["step"] = pace.steps()
        if isinstance(event, GameFinished):
            rows["games"] = (
                f"{event.game:,}, the last: return {event.game_return:g} in "
                f"{event.game_steps:,} steps"
            )
            goal = self._config.training.solved_return
            rows["mean return"] = f"{event.mean_return:.2f} over {event.games} games" + (
                ""
                if goal is None
                else f" (solved at {goal:g} over {self._config.training.solved_games})"
            )
        elif isinstance(event, FiguresTaken):
            for tag, value in event.figures.items():
                if tag.startswith("snr/"):
                    rows[f"SNR {tag.removeprefix('snr/')}"] = f"{value:.2f} (RMS(μ) / RMS(σ))"
                elif tag == "noise/effective_epsilon":
                    rows["effective ε"] = f"{value:.1%} of actions are changed by the noise"
                elif tag in ("loss", "epsilon", "entropy"):
                    rows[{"epsilon": "ε"}.get(tag, tag)] = f"{value:.4g}"
        elif isinstance(event, WorkerRestarted):
            rows["restarts"] = f"{event.restarts}, the last: {_restarted(event)}"
        elif isinstance(event, CheckpointDue):
            rows["checkpoint"] = f"step {event.step:,}"
        elif isinstance(event, TrainingEnded):
            rows["ended"] = event.reason
        rows["speed"] = f"{pace.speed:,.0f} steps/s"
        rows["time"] = f"{_duration(elapsed)} so far, {pace.left()}"
        if self._live is not None:
            self._live.update(self._picture())

    def closed(self) -> None:
        """Stop updating; the table stays on the screen."""
        if self._live is not None:
            self._live.stop()

    def _picture(self) -> Group:
        total = self._config.training.steps
        bar = Table.grid(padding=(0, 1))
        share = min(self._pace.step / total, 1.0)
        bar.add_row(
            ProgressBar(total=total, completed=min(self._pace.step, total), width=40),
            f"{share:.0%}",
            self._pace.left(),
        )
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(style="dim")
        table.add_column()
        for name, value in self._rows.items():
            table.add_row(name, Text(value))  # not markup: a folder may be called [seed=0]
        return Group(bar, table)
