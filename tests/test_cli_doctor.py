"""`noisynet doctor RUN`: one line each, JSON, the exit status, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from noisynet.assemble import start
from noisynet.cli import main
from noisynet.evaluation.agent import TrainedAgent
from noisynet.evaluation.run_findings import over_the_run, returns_by_noise, sigma_figures
from noisynet.runs import config
from noisynet.runs.evaluations import Evaluation

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


def test_an_agent_that_was_saved_has_no_metrics_and_is_examined_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start(config.load("cartpole", SMALL), tmp_path / "run").folder
    TrainedAgent.load(run).save(tmp_path / "saved")
    capsys.readouterr()
    assert main(["doctor", str(tmp_path / "saved")]) == 0
    assert "skipped sigma over the run: no figures of σ" in capsys.readouterr().out


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


def test_sigma_over_the_run_is_that_without_the_scale(tmp_path: Path) -> None:
    lines = [
        {"step": 1, "sigma/q.0": 0.1},
        {"step": 2, "sigma/q.0": 0.0008, "noise/scale": 0.01},
        {"step": 3, "sigma/q.0": 0.0, "noise/scale": 0.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    first, last = sigma_figures(tmp_path)["q.0"]
    assert (first, last) == (0.1, pytest.approx(0.08))


def test_returns_by_the_means_and_by_noise_that_part() -> None:
    means = Evaluation(100, "off", (10.0, 12.0, 14.0))
    assert returns_by_noise([]).status == "skipped"
    assert returns_by_noise([means]).status == "skipped"
    alike = returns_by_noise([means, Evaluation(100, "on", (11.0, 12.0, 13.0))])
    assert alike.status == "pass"
    assert alike.message.startswith(
        "12.00 by the mean weights, 12.00 under a draw, at step 100: no difference"
    )
    # Of another checkpoint: it says nothing of these means.
    assert returns_by_noise([means, Evaluation(90, "on", (20.0, 20.0))]).status == "skipped"
    apart = returns_by_noise(
        [means, Evaluation(100, "on", (20.0, 21.0, 19.0)), Evaluation(100, "mean:8", (12.0, 13.0))]
    )
    assert apart.status == "warn"
    assert "12.00 by the mean weights, 20.00 under a draw, 12.50 by mean:8" in apart.message
    # Welch: 8 ± t · √(4/3 + 1/3), of 2.94 degrees of freedom.
    assert "under a draw +3.84 to +12.16 (95 % of the difference)" in apart.message
    assert "by mean:8 " not in apart.message.partition("they part")[2]


def test_the_doctor_of_a_run_names_its_control(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start(config.load("cartpole", {**SMALL, "noise_target": 0.1}), tmp_path / "run")
    capsys.readouterr()
    assert main(["doctor", str(tmp_path / "run")]) == 0
    lines = capsys.readouterr().out.splitlines()
    control = next(line for line in lines if line.startswith("pass    control:"))
    assert control.startswith("pass    control: target, effective ε 0.1: the scale is ")
