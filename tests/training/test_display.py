"""What a person sees: lines without a terminal, a table with one."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from noisynet.runs import config
from noisynet.training import (
    CheckpointDue,
    Event,
    FiguresTaken,
    GameFinished,
    TrainingEnded,
    display,
)
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
    replace(GAME, game=13),  # within a second: no line of its own
    CheckpointDue(step=10_000),
    TrainingEnded(step=10_400, reason="interrupted"),
]


def shown(terminal: bool) -> str:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=120, height=40)
    display = make_display(console)
    assert isinstance(display, LiveDisplay if terminal else PlainDisplay)
    display.preparing("measuring the mean frame")
    display.started(Path("runs/pong-1"), config.load("pong"), 8000, ["games start anew"])
    for event in EVENTS:
        display.on_event(event, elapsed=75.4)
    display.closed()
    return output.getvalue()


@pytest.mark.parametrize("name", ["[seed=0]", "[/a]x"])
def test_a_folder_s_name_is_no_markup(name: str) -> None:
    output = io.StringIO()
    display = LiveDisplay(Console(file=output, force_terminal=True, width=120, height=40))
    display.started(Path("runs") / name, config.load("pong"), 0, [])
    display.closed()
    assert f"runs/{name}" in output.getvalue()


def test_an_environment_s_name_is_no_emoji() -> None:
    output = io.StringIO()
    PlainDisplay(Console(file=output)).preparing("games:Snake: measuring")
    assert output.getvalue() == "Games:Snake: measuring …\n"


GAME_LINE = (
    r"Game 12: return -21 in 760 steps, mean return -20\.50 of 12 games, loss {loss}, "
    r"step 9,120 of 1,000,000 \(36,480 frames\), [\d,]+ steps/s, 0:01:15 so far, "
    r"\d+:\d\d:\d\d left at most"
)


def test_a_plain_line_a_second_tells_of_games() -> None:
    lines = shown(terminal=False).splitlines()
    assert lines[:3] == [
        "Measuring the mean frame …",
        "Training ALE/Pong-v5 in runs/pong-1: step 8,000 of 1,000,000 (32,000 frames)",
        "Note: games start anew",
    ]
    assert re.fullmatch(GAME_LINE.format(loss="none yet"), lines[3])
    assert len(lines) == 4


def test_plain_lines_have_the_newest_loss_and_come_when_no_game_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(display.time, "monotonic", lambda: now)
    output = io.StringIO()
    plain = PlainDisplay(Console(file=output, width=200))
    plain.started(Path("run"), config.load("cartpole"), 0, [])
    plain.on_event(FiguresTaken(step=9000, figures={"loss": 0.0123}), 70.0)
    plain.on_event(replace(GAME, game_return=9.5), 75.4)
    now += 12.0
    plain.on_event(FiguresTaken(step=9500, figures={"loss": 0.5}), 87.0)
    lines = output.getvalue().splitlines()
    assert "loss 0.0123, step 9,120 of 80,000, " in lines[1]
    # CartPole has no goal: what is left is no upper limit.
    assert lines[1].endswith(" left")
    assert lines[2].startswith("No game ended in the last 12 s, loss 0.5, step 9,500 of 80,000, ")
    assert len(lines) == 3


def test_the_table_shows_progress_returns_speed_and_the_noise() -> None:
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown(terminal=True))
    for part in (
        "ALE/Pong-v5", "10,400 of 1,000,000", "41,600", "-20.50 over 12 games", "solved at 18",
        "SNR advantage.0", "1.23 (RMS(μ) / RMS(σ))", "steps/s", "left at most", "interrupted",
        "games start anew", "Measuring the mean frame …", "return -21 in 760 steps",
    ):  # fmt: skip
        assert part in text, part
    assert re.search(r"effective ε *12\.3% of actions are changed by the noise", text)


def test_the_bar_shows_the_share_of_the_steps_and_the_time_left() -> None:
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown(terminal=True))
    assert re.search(r"━+ +1% +\d+:\d\d:\d\d left at most", text), text
