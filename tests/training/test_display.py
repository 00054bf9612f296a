"""What a person sees: lines without a terminal, a table with one."""

import io
import re
from pathlib import Path

from rich.console import Console

from noisynet.runs import config
from noisynet.training import CheckpointDue, Event, FiguresTaken, GameFinished, TrainingEnded
from noisynet.training.display import LiveDisplay, PlainDisplay, make_display

GAME = GameFinished(
    step=9120,
    game=12,
    game_return=-21.0,
    game_steps=760,
    environment=3,
    mean_return=-20.5,
    games=12,
)
EVENTS: list[Event] = [
    GAME,
    FiguresTaken(step=9200, figures={"loss": 0.0123, "snr/advantage.0": 1.234, "epsilon": 0.5}),
    FiguresTaken(step=9300, figures={"noise/effective_epsilon": 0.12345}),
    CheckpointDue(step=10_000),
    TrainingEnded(step=10_400, reason="interrupted"),
]


def shown(terminal: bool) -> str:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=120, height=40)
    display = make_display(console)
    assert isinstance(display, LiveDisplay if terminal else PlainDisplay)
    display.started(Path("runs/pong-1"), config.load("pong"), 8000, ["games start anew"])
    for event in EVENTS:
        display.heard(event, elapsed=75.4)
    display.closed()
    return output.getvalue()


def test_one_plain_line_per_finished_game() -> None:
    lines = shown(terminal=False).splitlines()
    assert lines[0] == "Training ALE/Pong-v5 in runs/pong-1, from step 8000"
    assert lines[1] == "Note: games start anew"
    assert re.fullmatch(
        r"Episode 12: reward=-21, steps=760, speed=\d+ steps/s, elapsed=0:01:15", lines[2]
    )
    assert len(lines) == 3


def test_the_table_shows_progress_returns_speed_and_the_noise() -> None:
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown(terminal=True))
    for part in (
        "ALE/Pong-v5", "10,400 of 1,000,000", "41,600", "-20.50 over 12 games", "solved at 18",
        "SNR advantage.0", "1.23", "steps/s", "left at most", "interrupted", "games start anew",
    ):  # fmt: skip
        assert part in text, part
    assert re.search(r"effective ε *0\.123", text)
