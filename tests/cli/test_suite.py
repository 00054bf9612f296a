"""`noisynet suite` as a user meets it before anything runs: lists, estimates, mistakes."""

import json
import socket
from pathlib import Path

import pytest

from noisynet.cli import main
from noisynet.runs import config
from noisynet.suite.cost import steps_per_second

TEXT = """
environments: [Chain-6]
variants: {noise: {}, epsilon: {exploration: epsilon}}
seeds: 3
overrides: {steps: 500}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(TEXT)
    return "mine.yaml"


def test_a_dry_run_lists_the_trials_and_starts_nothing(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["suite", file, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert lines[0].split()[:3] == ["chain-6-noise-seed0", "Chain-6", "500"]
    assert lines[-1] == "6 trials, 3,000 steps, in runs/mine"
    assert main(["suite", file, "--dry-run", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["seed"] for one in listed["trials"]] == [0, 1, 2] * 2
    assert listed["steps"] == 3000
    assert not Path("runs").exists()


def test_every_mistake_is_a_line(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(file).write_text("environments: [Chian-6]\nretry: 3\noverrides: {n_step: 0, batch: 3}\n")
    assert main(["suite", file]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    lines = errors.splitlines()
    assert all(line.startswith("noisynet suite: ") for line in lines)
    for part in ("'retry'", "--n-step", "'batch'", "Chian-6"):
        assert any(part in line for line in lines), lines
    assert len(lines) == 4
    assert not Path("runs").exists()


def test_nobody_at_the_address_is_one_line(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert main(["suite", file, "--ray", f"127.0.0.1:{port}"]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"noisynet suite: --ray: no cluster at 127.0.0.1:{port}: ")
    assert len(errors.splitlines()) == 1


def test_a_large_suite_is_estimated_and_not_started_without_yes(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(file).write_text(TEXT.replace("steps: 500", "steps: 100000000"))
    assert main(["suite", file]) == 2
    output, errors = capsys.readouterr()
    lines = output.splitlines()
    assert lines[0] == "6 trials still have 600,000,000 steps to take"
    assert lines[1].startswith("noise: ")
    assert "steps/s, measured here in 8 s of Chain-6 with 1 thread" in lines[1]
    assert any("one after the other" in line for line in lines)
    assert "--yes starts it" in errors
    assert len(errors.splitlines()) == 1
    assert not Path("runs").exists()


def test_a_speed_is_measured_with_learning() -> None:
    chosen = config.load("Chain-6", {"threads": 1, "device": "cpu"})
    learning = steps_per_second(chosen, seconds=1.0)
    rarely = steps_per_second(chosen.replaced(update_every=64), seconds=1.0)
    assert 0 < learning < rarely
