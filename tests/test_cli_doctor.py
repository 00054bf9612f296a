"""`noisynet doctor RUN`: one line each, JSON, the exit status, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from noisynet.assemble import start
from noisynet.cli import main
from noisynet.evaluation.examination import over_the_run
from noisynet.runs import config

SMALL = {
    "steps": 700,
    "warmup_steps": 200,
    "log_every": 20,
    "replay_capacity": 500,
    "batch_size": 16,
}


@pytest.mark.parametrize("preset", ["cartpole", "cartpole-noisy-a2c"])
def test_our_own_runs_pass(preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = SMALL if preset == "cartpole" else {"steps": 1200, "log_every": 2}
    start(config.load(preset, settings), tmp_path / "run")
    files = {one: one.stat().st_mtime_ns for one in (tmp_path / "run").rglob("*")}
    capsys.readouterr()
    assert main(["doctor", str(tmp_path / "run")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.split()[0] in ("pass", "warn", "skipped") for line in lines)
    checks = ("acting", "sigma gradient", "sigma moves", "redraw between updates", "evaluation",
              "policy", "units", "rows", "noise in the loss", "sigma over the run")  # fmt: skip
    for check in checks:
        assert any(line.startswith(f"pass    {check}:") for line in lines), (check, lines)
    assert main(["doctor", str(tmp_path / "run"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is True
    assert len(document["findings"]) == len(lines)
    # The folder is only read.
    assert {one: one.stat().st_mtime_ns for one in (tmp_path / "run").rglob("*")} == files


def test_a_run_without_noise_and_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(config.load("cartpole-epsilon", SMALL), tmp_path / "run")
    for folder, said in (("run", "explores by epsilon"), ("nowhere", "nowhere")):
        assert main(["doctor", str(tmp_path / folder)]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert len(error.splitlines()) == 1


def test_sigma_over_the_run() -> None:
    assert over_the_run({}).status == "skipped"
    assert over_the_run({"q.0": (0.1, 0.1)}).status == "skipped"
    assert over_the_run({"q.0": (0.1, 0.05), "q.2": (0.1, 0.2)}).status == "pass"
    collapsed = over_the_run({"q.0": (0.1, 0.05), "q.2": (0.1, 0.0001)})
    assert collapsed.status == "fail"
    assert "'q.2' collapsed" in collapsed.message
    assert over_the_run({"q.0": (0.1, 1.5)}).status == "fail"
