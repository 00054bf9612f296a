"""`resume RUN --steps N`: a run that was over goes on, and is the longer run; `--FIELD VALUE`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import noisynet
from noisynet.assemble import start
from noisynet.assemble.resolve import local_cpus
from noisynet.cli import main
from noisynet.evaluation.examine_run import examine
from noisynet.runs import checkpoint, config, open_run
from noisynet.runs.record import read_run

from ..training.same_run import assert_same_run

SMALL = {
    "steps": 600, "warmup_steps": 150, "replay_capacity": 2000, "batch_size": 16,
    "checkpoint_every": 250, "log_every": 20, "threads": 1, "device": "cpu",
}  # fmt: skip
CONSTANT = {**SMALL, "final_learning_rate": None}
"""No schedule ends with the run."""
ROLLOUTS = {"final_learning_rate": None, "checkpoint_every": 250, "threads": 1}


def assert_same(one: Path, other: Path) -> None:
    assert_same_run(one, other)
    assert open_run(one).config == open_run(other).config


def files(folder: Path) -> dict[Path, tuple[int, bytes]]:
    held = [one for one in folder.rglob("*") if one.is_file() and one.name != "run.lock"]
    return {one: (one.stat().st_mtime_ns, one.read_bytes()) for one in held}


@pytest.mark.parametrize(
    ("preset", "fields", "steps"),
    [
        ("cartpole", CONSTANT, 1200),
        ("cartpole-epsilon", {**CONSTANT, "epsilon_steps": 700}, 1200),
        ("cartpole-noisy-a2c", {**ROLLOUTS, "steps": 600}, 1200),
        ("pqn-cartpole", {**ROLLOUTS, "steps": 2000, "epochs": 1}, 4000),
    ],
)
def test_an_extended_run_is_the_longer_run(
    preset: str,
    fields: dict[str, Any],
    steps: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, extended = tmp_path / "whole", tmp_path / "extended"
    start(config.load(preset, {**fields, "steps": steps}), whole)
    start(config.load(preset, fields), extended)
    capsys.readouterr()
    assert main(["resume", str(extended), "--steps", str(steps)]) == 0
    output = capsys.readouterr().out
    assert f"Note: since the checkpoint: steps was {fields['steps']}, is {steps}\n" in output
    assert "the schedule of" not in output
    assert_same(extended, whole)
    # Whoever asks later, hears of the same run.
    run = read_run(extended)
    assert (run.state, run.config.training.steps) == ("finished", steps)
    assert main(["resume", str(extended)]) == 0
    assert f"Nothing to do: the run ended at step {run.step:,}, " in capsys.readouterr().out


def test_a_schedule_that_ends_with_the_run_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start(config.load("cartpole", SMALL), tmp_path / "run").folder
    capsys.readouterr()
    assert main(["resume", str(run), "--steps", "800"]) == 0
    assert (
        "Note: the schedule of final_learning_rate ends at the last step: from now on it is that "
        "of a run of 800 steps, not of 600 as before\n"
    ) in capsys.readouterr().out


@pytest.fixture
def over(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start(config.load("cartpole", SMALL), tmp_path_factory.mktemp("over") / "run").folder


@pytest.mark.parametrize("steps", ["600", "17", "x"])
def test_steps_that_were_taken_are_refused_and_nothing_is_written(
    over: Path, steps: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(over)
    capsys.readouterr()
    try:
        status = main(["resume", str(over), "--steps", steps])
    except SystemExit as left:
        status = left.code
    assert status == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("noisynet resume: --steps: got ")
    assert steps == "x" or "expected more than 60" in errors
    assert files(over) == before


def test_without_steps_a_run_that_is_over_is_only_read(
    over: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(over)
    capsys.readouterr()
    assert main(["resume", str(over), "--json"]) == 0
    output, errors = capsys.readouterr()
    found = json.loads(output)
    assert found["trained"] is False
    assert (found["reason"], found["folder"]) == ("steps", str(over))
    assert errors == ""
    assert files(over) == before


def test_a_run_that_was_solved_goes_on_without_its_goal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = {**CONSTANT, "solved_return": 1.0, "solved_games": 3}
    outcome = start(config.load("cartpole", fields), tmp_path / "run")
    assert outcome.reason == "solved"
    run = outcome.folder
    capsys.readouterr()
    assert main(["resume", str(run)]) == 0
    said = capsys.readouterr().out
    assert "Nothing to do: the run was solved at step " in said
    assert said.endswith("--steps N` trains it to N steps, solved or not.\n")
    assert main(["resume", str(run), "--steps", "700"]) == 0
    said = capsys.readouterr().out
    assert "Note: since the checkpoint: solved_return was 1.0, is None\n" in said
    assert "Done: 70" in said
    # It is the run that had no goal.
    start(config.load("cartpole", {**fields, "solved_return": None, "steps": 700}), tmp_path / "no")
    assert_same(run, tmp_path / "no")


def test_a_run_that_was_stopped_may_end_sooner_or_later(
    tmp_path: Path, over: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A goal that was not reached stays."""
    fields = {**CONSTANT, "solved_return": 10_000.0}
    run = start(config.load("cartpole", fields), tmp_path / "run").folder
    assert main(["resume", str(run), "--steps", "700"]) == 0
    assert open_run(run).config.training.solved_return == 10_000.0
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(over / "config.yaml", begun)
    (begun / "checkpoints").mkdir()
    assert main(["resume", str(begun), "--steps", "300"]) == 0
    assert (checkpoint.newest_step(begun / "checkpoints") or 0) in range(300, 310)


def test_a_field_that_may_change_does_while_a_run_goes_on(
    tmp_path: Path, over: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command, from Python, and by hand in config.yaml: the same run."""
    by_command, from_python, by_hand = (tmp_path / name for name in ("one", "two", "three"))
    for run in (by_command, from_python, by_hand):
        shutil.copytree(over, run)
    capsys.readouterr()
    changes = ["--steps", "800", "--redo-every", "50", "--learning-rate", "1e-4", "--no-double"]
    assert main(["resume", str(by_command), *changes]) == 0
    output = capsys.readouterr().out
    assert "Note: since the checkpoint: redo_every was 0, is 50\n" in output
    assert "Note: since the checkpoint: double was True, is False\n" in output
    learning = open_run(by_command).config.learning
    assert (learning.learning_rate, learning.double) == (1e-4, False)

    fields = {"redo_every": 50, "learning_rate": 1e-4, "double": False}
    noisynet.resume(from_python, steps=800, progress=False, **fields)
    assert_same(from_python, by_command)

    text = (by_hand / "config.yaml").read_text()
    for former, now in (
        ("steps: 600", "steps: 800"),
        ("redo_every: 0", "redo_every: 50"),
        (f"learning_rate: {open_run(over).config.learning.learning_rate}", "learning_rate: 1e-4"),
        ("double: true", "double: false"),
    ):
        assert text.count(f" {former}\n") == 1
        text = text.replace(f" {former}\n", f" {now}\n")
    (by_hand / "config.yaml").write_text(text)
    assert main(["resume", str(by_hand)]) == 0
    assert_same(by_hand, by_command)


def test_what_a_resumed_run_leaves_open_is_chosen_as_at_its_start(
    tmp_path: Path, over: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(over, run)
    opened = ["--device", "auto", "--precision", "auto", "--execution", "auto", "--threads", "0"]
    assert main(["resume", str(run), "--steps", "700", *opened]) == 0
    training = open_run(run).config.training
    assert training.device in ("cpu", "cuda")
    assert training.precision in ("float32", "bfloat16")
    assert training.execution in ("plain", "graph")
    assert training.threads == local_cpus()
    assert open_run(run).config.made_with == open_run(over).config.made_with
    # By hand, too, and the run can be evaluated after it.
    file = run / "config.yaml"
    file.write_text(re.sub("(device|precision): .*", r"\1: auto", file.read_text()))
    capsys.readouterr()
    assert main(["resume", str(run), "--steps", "800"]) == 0
    assert open_run(run).config.training.device == training.device
    assert main(["evaluate", str(run), "--episodes", "1"]) == 0


@pytest.mark.parametrize("preset", ["cartpole-btr", "cartpole-noisy-a2c", "pqn-cartpole"])
def test_a_run_of_a_gpu_goes_on_without_one(preset: str, tmp_path: Path) -> None:
    fields = SMALL if preset == "cartpole-btr" else ROLLOUTS
    run = start(config.load(preset, {**fields, "steps": 600}), tmp_path / "run").folder
    found = open_run(run).trained()
    # A GPU's generator has a seed and an offset.
    arrays = {
        name: np.full(16, index, np.uint8) if name.startswith("generator.") else array
        for index, (name, array) in enumerate(found.arrays.items())
    }
    checkpoint.write(run / "checkpoints", found.step, arrays, found.state)
    assert len(examine(run)) > 2
    assert main(["resume", str(run), "--steps", "3000"]) == 0
    states = [
        array.tobytes()
        for name, array in open_run(run).trained().arrays.items()
        if name.startswith("generator.")
    ]
    assert len(set(states)) == len(states) >= 2


def test_more_steps_do_not_begin_a_finished_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = {**SMALL, "log_every": 1, "update_every": 1, "checkpoint_every": 100_000}
    run = start(config.load("cartpole", fields), tmp_path / "run").folder
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    lines = (run / "metrics.jsonl").read_bytes()
    for changes in ([], ["--steps", "1000"]):
        assert main(["resume", str(run), *changes]) == 2
        assert "holds no checkpoint, and the metrics reach step" in capsys.readouterr().err
        assert (run / "metrics.jsonl").read_bytes() == lines


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--environments", "3"], "--environments: cannot change in a resumed run: train"),
        (["--learning-rate", "-1"], "--learning-rate: got -1, expected "),
        (["--actors", "2", "--steps", "800"], "--actors: cannot change in a resumed run"),
        (["--epochs", "4"], "--epochs: would do nothing: algorithm is q_learning"),
        (
            ["--no-double", "--redo-every", "50"],
            "--double, --redo-every: would do nothing, since the run is over: it ended at step 60",
        ),
        (["--learning-rat", "1"], "--learning-rat: no such option; did you mean --learning-rate?"),
    ],
)
def test_a_change_that_may_not_be_is_one_line_and_nothing_is_written(
    over: Path, changes: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(over)
    capsys.readouterr()
    try:
        status = main(["resume", str(over), *changes])
    except SystemExit as left:
        status = left.code
    output, errors = capsys.readouterr()
    assert (status, output) == (2, "")
    assert errors.startswith(f"noisynet resume: {said}")
    assert errors.count("\n") == 1
    assert files(over) == before


def test_from_python_a_field_that_may_not_change_is_refused(over: Path) -> None:
    before = files(over)
    with pytest.raises(noisynet.runs.RunError, match="environments was 8, is 3: it cannot change"):
        noisynet.resume(over, environments=3, progress=False)
    assert files(over) == before


def test_a_config_that_cannot_be_put_in_place_leaves_the_run_as_it_was(
    over: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = files(over)
    monkeypatch.setattr("noisynet.disk.os.fsync", full)
    capsys.readouterr()
    assert main(["resume", str(over), "--steps", "700"]) == 2
    assert "config.yaml: cannot be written: No space left on device" in capsys.readouterr().err
    monkeypatch.undo()
    assert files(over) == before


def test_a_resume_that_cannot_begin_leaves_the_config_as_it_was(
    over: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (over / "metrics.jsonl").rename(over / "former.jsonl")
    (over / "metrics.jsonl").symlink_to(over / "former.jsonl")
    before = (over / "config.yaml").read_bytes()
    assert main(["resume", str(over), "--steps", "700"]) == 2
    assert "metrics.jsonl: cannot be written: it is a link" in capsys.readouterr().err
    assert (over / "config.yaml").read_bytes() == before


def test_a_run_that_lost_its_figures_goes_on_and_says_so(
    over: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (over / "metrics.jsonl").unlink()
    capsys.readouterr()
    assert main(["resume", str(over), "--steps", "700"]) == 0
    said = capsys.readouterr()
    assert re.search(
        r"metrics\.jsonl: [\d,]+ bytes of earlier figures were lost", said.out + said.err
    )
