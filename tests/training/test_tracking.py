"""Trackers send what a run tells, and a run that goes on finds its former twin."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from noisynet.assemble import resume, start
from noisynet.cli import main
from noisynet.runs import Config, RunError, config, read_metrics
from noisynet.training.tracking import Tracker, make_tracker

SMALL = {"steps": 700, "warmup_steps": 200, "batch_size": 16, "threads": 1, "device": "cpu"}


class Recorder(Tracker):
    """A service that keeps what it is sent."""

    name = "recorder"

    def __init__(self) -> None:
        self.begun: list[tuple[str, str | None]] = []
        self.sent: list[tuple[int, dict[str, float]]] = []
        self.ended = 0

    def begin(self, folder: Path, config: Config, identity: str | None) -> str:
        self.begun.append((config.preset, identity))
        return identity or "twin-1"

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self.sent.append((step, dict(figures)))

    def end(self) -> None:
        self.ended += 1


def test_what_metrics_hold_is_sent_in_groups(tmp_path: Path) -> None:
    recorder = Recorder()
    start(config.load("cartpole", SMALL), tmp_path / "run", [recorder])
    lines = list(read_metrics(tmp_path / "run"))
    games = [line for line in lines if "game/return" in line]
    assert [
        figures["games/return"] for _, figures in recorder.sent if "games/return" in figures
    ] == [line["game/return"] for line in games]
    tags = {tag for _, figures in recorder.sent for tag in figures}
    assert {tag.partition("/")[0] for tag in tags} == {
        "games", "time", "loss", "learning", "noise", "units"
    }  # fmt: skip
    assert {"loss/loss", "noise/sigma/q.0", "units/dormant/q.0"} <= tags
    assert not any("env" in tag for tag in tags)
    assert recorder.ended == 1


def test_a_run_that_goes_on_is_sent_to_the_same_twin(tmp_path: Path) -> None:
    run = start(config.load("cartpole", SMALL), tmp_path / "run", [Recorder()]).folder
    assert json.loads((run / "tracking.json").read_text()) == {"recorder": "twin-1"}
    again = Recorder()
    resume(run, [again], changes={"steps": 900})
    assert again.begun == [("cartpole", "twin-1")]
    assert again.sent[0][0] >= 700


class Refusing(Recorder):
    """A service that does not know its user."""

    def begin(self, folder: Path, config: Config, identity: str | None) -> str:
        raise RunError("--track: recorder: who are you?")


def test_a_service_that_refuses_leaves_no_run_behind(tmp_path: Path) -> None:
    before, refusing, after = Recorder(), Refusing(), Recorder()
    with pytest.raises(RunError, match=r"^--track: recorder: who are you\?$"):
        start(config.load("cartpole", SMALL), tmp_path / "run", [before, refusing, after])
    assert not (tmp_path / "run").exists()
    assert [one.ended for one in (before, refusing, after)] == [1, 0, 0]


class Lost(Recorder):
    """A service whose connection breaks."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        raise BrokenPipeError("gone")

    def end(self) -> None:
        raise RuntimeError("gone too")


@pytest.mark.filterwarnings("default")
def test_a_service_that_fails_costs_the_run_nothing(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match=r"^recorder: (BrokenPipe|Runtime)Error: gone") as said:
        outcome = start(config.load("cartpole", SMALL), tmp_path / "run", [Lost()])
    assert outcome.reason == "steps"
    assert "gone too" in str(said[-1].message)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_named_with_the_cure(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        RunError, match=rf"--track: {name} needs {name}: pip install '.*\[{name}\]'"
    ):
        make_tracker(name)


def test_a_wrong_tracker_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "cartpole", "--track", "wandbb"])
    assert "--track: got 'wandbb', expected wandb or mlflow; did you mean wandb?" in (
        capsys.readouterr().err
    )


def trained(name: str, folder: Path) -> Path:
    options = [f"--{field.replace('_', '-')}={value}" for field, value in SMALL.items()]
    assert main(["train", "cartpole", *options, "--track", name, "--out", str(folder)]) == 0
    assert main(["resume", str(folder), "--steps", "900", "--track", name]) == 0
    return folder


@pytest.mark.peers
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is an extra")
@pytest.mark.filterwarnings("ignore")
def test_weights_and_biases_hold_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = trained("wandb", tmp_path / "run")
    (identity,) = json.loads((run / "tracking.json").read_text()).values()
    kept = list((run / "wandb").glob(f"offline-run-*-{identity}/run-{identity}.wandb"))
    assert len(kept) == 2
    said = b"".join(one.read_bytes() for one in kept)
    assert b"games/mean_return" in said
    assert b"noise/sigma/q.0" in said
    assert b"learning_rate" in said


@pytest.mark.peers
@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="mlflow is an extra")
@pytest.mark.filterwarnings("ignore")
def test_mlflow_holds_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    run = trained("mlflow", tmp_path / "run")
    import mlflow  # pyright: ignore[reportMissingImports]

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("noisynet")
    (twin,) = client.search_runs([experiment.experiment_id])
    assert json.loads((run / "tracking.json").read_text()) == {"mlflow": twin.info.run_id}
    assert twin.info.status == "FINISHED"
    assert twin.data.params["learning_rate"] == "0.001"
    games = [line for line in read_metrics(run) if "game/return" in line]
    history = client.get_metric_history(twin.info.run_id, "games/return")
    assert {(one.step, one.value) for one in history} == {
        (line["step"], line["game/return"]) for line in games
    }
