"""What commands tell while they work and of errors: progress, threads, JSON, tracebacks."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import pytest
import torch

from noisynet.assemble import start
from noisynet.cli import main
from noisynet.cli.progress import show_progress
from noisynet.runs import config
from noisynet.runs.cards import cards

SMALL = {
    "steps": 500, "warmup_steps": 150, "replay_capacity": 500, "batch_size": 16, "threads": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start(config.load("cartpole", SMALL), tmp_path_factory.mktemp("told") / "run").folder


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "--episodes", "1"],
        ["report", "--episodes", "1"],
        ["watch", "--steps", "2"],
        ["doctor"],
    ],
)
def test_a_run_is_played_on_its_own_threads(
    command: list[str], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two threads on a core that is busy take several times as long as one."""
    before = torch.get_num_threads()
    out = {
        "report": ["--out", str(tmp_path / "a.html")],
        "watch": ["--out", str(tmp_path / "a.gif")],
    }
    try:
        torch.set_num_threads(2)
        assert main([command[0], str(run), *command[1:], *out.get(command[0], [])]) in (0, 1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def only_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_what_is_printed_can_be_had_as_json(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = only_json(capsys, "watch", str(run), "--steps", "3", "--out", str(tmp_path / "a.gif"))
    assert film["path"] == str(tmp_path / "a.gif")
    assert (film["steps"], film["return"], film["noise"]) == (3, 3.0, "off")
    page = tmp_path / "page.html"
    report = only_json(capsys, "report", str(run), "--episodes", "0", "--out", str(page))
    assert (report["path"], report["bytes"]) == (str(page), page.stat().st_size)
    assert any("no game was played" in str(note) for note in report["notes"])  # type: ignore[union-attr]
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    out = tmp_path / "new"
    trained = only_json(capsys, "train", "cartpole", *options, "--out", str(out))
    assert (trained["folder"], trained["reason"], trained["trained"]) == (str(out), "steps", True)
    assert isinstance(trained["mean_return"], float)
    presets = only_json(capsys, "presets")
    card = presets["cartpole"]["card"]  # type: ignore[index]
    assert (card["steps"], card["measured_in"]) == (80_000, "benchmarks/results/study/cartpole.md")


def test_presets_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["presets"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["preset", "steps", "time", "score", "what", "it", "is"]
    names = [line.split()[0] for line in lines[: lines.index("")]]
    assert names == config.preset_names()
    cartpole = next(line for line in lines if line.startswith("cartpole "))
    card = cards()["cartpole"]
    assert re.split(r"  +", cartpole) == [
        "cartpole", "80,000", card.time, card.score, "CartPole, explored by learned noise alone",
    ]  # fmt: skip


def test_a_narrow_terminal_has_the_sentences_below_the_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["presets"]) == 0
    head, *lines = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert head.split() == ["preset", "steps", "time", "score"]
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if line[0] != " "] == config.preset_names()
    row = next(index for index, line in enumerate(lines) if line.startswith("cartpole "))
    assert lines[row + 1] == "    CartPole, explored by learned noise alone"


def test_what_is_measured_at_the_start_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--steps=200", "--precision=auto", "--warmup-steps=150", "--batch-size=8"]
    capsys.readouterr()
    assert main(["train", "cartpole", *options, "--out", str(tmp_path / "run")]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "Measuring which precision is faster here: float32 or bfloat16 …"
    assert second.startswith("Training CartPole-v1 in ")


def test_progress_is_a_line_at_most_every_ten_seconds_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("noisynet.cli.progress.time.monotonic", lambda: now)
    with show_progress("Playing") as tell:
        for second in range(25):
            now = 100.0 + second
            tell(f"{second} of 25 games")
    assert capsys.readouterr().err.splitlines() == ["10 of 25 games", "20 of 25 games"]


def test_progress_on_a_terminal_is_one_line_that_goes_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with show_progress("Playing") as tell:
        tell("3 of 10 games")
        time.sleep(0.3)  # the line is drawn some ten times a second
    output, errors = capsys.readouterr()
    assert output == ""
    assert "Playing: 3 of 10 games" in errors
    # The cursor's line is cleared at the end.
    assert "\x1b[2K" in errors.partition("3 of 10 games")[2]


BROKEN = """
import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Broken(gymnasium.Env):
    observation_space = Box(-1, 1, (3,), np.float32)
    action_space = Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action):
        return self.speed()

    def speed(self):
        return {}["speed"]


def unmade():
    raise OSError("no display")
"""


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the place of the error in a user's own environment, which is in the current folder."""
    (tmp_path / "broken_games.py").write_text(BROKEN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "broken_games", raising=False)
    lines = BROKEN.splitlines()
    return f"broken_games.py:{lines.index(next(one for one in lines if 'return {}[' in one)) + 1}"


def test_an_error_of_ones_own_environment_is_a_line_with_its_place(
    broken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "broken_games:Broken", "--out", "run"]
    capsys.readouterr()
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert len(errors.splitlines()) == 1
    assert f"step raised KeyError: 'speed' ({broken})" in errors
    assert main(["train", "broken_games:unmade"]) == 2
    assert "cannot be made: OSError: no display (broken_games.py:" in capsys.readouterr().err


@pytest.mark.parametrize("first", [True, False])
def test_debug_shows_the_traceback_before_the_line(
    first: bool, broken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "broken_games:Broken", "--out", "run"]
    capsys.readouterr()
    assert main(["--debug", *arguments] if first else [*arguments, "--debug"]) == 2
    errors = capsys.readouterr().err
    assert "Traceback (most recent call last):" in errors
    assert 'return {}["speed"]' in errors
    last = errors.splitlines()[-1]
    assert last.startswith("noisynet train: broken_games:Broken: environment 0 of ")
    assert broken in last
