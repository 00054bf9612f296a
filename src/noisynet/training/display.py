"""What a person sees while a run trains: a live table, or plain lines without a terminal."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from ..runs.config import Config
from .events import (
    CheckpointDue,
    Event,
    FiguresTaken,
    GameFinished,
    TrainingEnded,
    WorkerRestarted,
)


def make_display(console: Console) -> PlainDisplay | LiveDisplay:
    """Return a live display for a terminal, plain lines for anything else."""
    return LiveDisplay(console) if console.is_terminal else PlainDisplay(console)


class _Speed:
    """Steps per second over the last half minute or so."""

    def __init__(self, step: int) -> None:
        self._marks = [(time.perf_counter(), step)]

    def at(self, step: int) -> float:
        now = time.perf_counter()
        if now - self._marks[-1][0] >= 1:
            self._marks = [*self._marks[-29:], (now, step)]
        then, before = self._marks[0]
        return (step - before) / max(now - then, 1e-9)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _restarted(event: WorkerRestarted) -> str:
    return f"worker {event.worker} started again: {event.reason}"


class PlainDisplay:
    """Print one line per finished game."""

    def __init__(self, console: Console) -> None:
        """Print to a console."""
        self._console = console
        self._speed = _Speed(0)

    def started(self, folder: Path, config: Config, step: int, notes: list[str]) -> None:
        """Print what is trained, where, and what is worth knowing."""
        self._speed = _Speed(step)
        self._line(f"Training {config.environment.environment} in {folder}, from step {step}")
        for note in notes:
            self._line(f"Note: {note}")

    def heard(self, event: Event, elapsed: float) -> None:
        """Print a line for a finished game, or for a worker that was replaced."""
        if isinstance(event, GameFinished):
            self._line(
                f"Episode {event.game}: reward={event.game_return:g}, steps={event.game_steps}, "
                f"speed={self._speed.at(event.step):.0f} steps/s, elapsed={_duration(elapsed)}"
            )
        elif isinstance(event, WorkerRestarted):
            self._line(f"Note: {_restarted(event)}")

    def closed(self) -> None:
        """Have nothing to take away."""

    def _line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)


class LiveDisplay:
    """Keep a table up to date: progress, returns, speed, SNR per layer, effective ε."""

    def __init__(self, console: Console) -> None:
        """Draw on a console."""
        self._console = console
        self._live: Live | None = None
        self._rows: dict[str, str] = {}

    def started(self, folder: Path, config: Config, step: int, notes: list[str]) -> None:
        """Show the empty table, under the notes."""
        self._config = config
        self._speed = _Speed(step)
        section = config.environment
        self._frames_per_step = section.frame_skip if section.is_atari else 1
        for note in notes:
            self._console.print(f"Note: {note}", soft_wrap=True, markup=False, highlight=False)
        self._rows = {
            "run": str(folder),
            "environment": config.environment.environment,
            "exploration": config.exploration.exploration,
            "step": f"{step:,} of {config.training.steps:,}",
        }
        self._live = Live(self._table(), console=self._console, refresh_per_second=4)
        self._live.start()

    def heard(self, event: Event, elapsed: float) -> None:
        """Bring the table up to date."""
        rows = self._rows
        speed = self._speed.at(event.step)
        total = self._config.training.steps
        rows["step"] = f"{event.step:,} of {total:,}"
        rows["frames"] = f"{event.step * self._frames_per_step:,}"
        if isinstance(event, GameFinished):
            rows["games"] = f"{event.game:,}, the last: {event.game_return:g}"
            goal = self._config.training.solved_return
            rows["mean return"] = f"{event.mean_return:.2f} over {event.games} games" + (
                ""
                if goal is None
                else f" (solved at {goal:g} over {self._config.training.solved_games})"
            )
        elif isinstance(event, FiguresTaken):
            for tag, value in event.figures.items():
                if tag.startswith("snr/"):
                    rows[f"SNR {tag.removeprefix('snr/')}"] = f"{value:.2f}"
                elif tag == "noise/effective_epsilon":
                    rows["effective ε"] = f"{value:.3f}"
                elif tag in ("loss", "epsilon", "entropy"):
                    rows[tag] = f"{value:.4g}"
        elif isinstance(event, WorkerRestarted):
            rows["restarts"] = f"{event.restarts}, the last: {_restarted(event)}"
        elif isinstance(event, CheckpointDue):
            rows["checkpoint"] = f"step {event.step:,}"
        elif isinstance(event, TrainingEnded):
            rows["ended"] = event.reason
        rows["speed"] = f"{speed:,.0f} steps/s"
        left = _duration((total - event.step) / speed) if speed > 0 else "?"
        rows["time"] = f"{_duration(elapsed)} so far, {left} left at most"
        if self._live is not None:
            self._live.update(self._table())

    def closed(self) -> None:
        """Leave the table as it is."""
        if self._live is not None:
            self._live.stop()

    def _table(self) -> Table:
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(style="dim")
        table.add_column()
        for name, value in self._rows.items():
            table.add_row(name, value)
        return table
