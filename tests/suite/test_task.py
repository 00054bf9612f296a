"""One trial, by what its folder holds: in this process, without Ray."""

import _thread
import json
import os
import resource
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from noisynet.assemble import train
from noisynet.runs import RunFolder, config
from noisynet.suite.task import (
    RESULT,
    Task,
    checkpoint_step,
    reached_step,
    result_of,
    run_trial,
)

SMALL = {
    "steps": 400, "warmup_steps": 100, "batch_size": 16, "replay_capacity": 600, "log_every": 20,
    "checkpoint_every": 100, "device": "cpu", "precision": "float32", "threads": 1,
}  # fmt: skip


def task(folder: Path, **fields: object) -> Task:
    chosen = config.load("cartpole", {**SMALL, **fields})
    return Task(folder, chosen.to_yaml(), episodes=2, noise=("off", "on"), patience=0.5)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Task:
    made = task(tmp_path_factory.mktemp("trial") / "run")
    assert run_trial(made) == {"state": "done"}
    return made


def test_a_trial_is_an_ordinary_run_with_its_evaluation(done: Task) -> None:
    result = result_of(done)
    assert result is not None
    assert result["step"] == checkpoint_step(done.folder) >= 400
    assert result["reason"] == "steps"
    assert {name: one["episodes"] for name, one in result["evaluations"].items()} == {
        "off": 2,
        "on": 2,
    }
    assert config.from_yaml(RunFolder.open(done.folder).config_text, "run").training.steps == 400


def test_an_agent_without_noise_is_evaluated_whatever_noise_is_asked_for(tmp_path: Path) -> None:
    chosen = config.load("cartpole-epsilon", {**SMALL, "steps": 120})
    trial = Task(tmp_path / "run", chosen.to_yaml(), episodes=1, noise=("on",))
    assert run_trial(trial) == {"state": "done"}
    result = result_of(trial)
    assert result is not None
    assert list(result["evaluations"]) == ["off"]


def test_a_trial_saves_as_ray_cancels_it_in_the_background_of_a_script(tmp_path: Path) -> None:
    """SIGINT is ignored there, where Ray cancels by `interrupt_main`, which then does nothing."""
    trial = task(tmp_path / "run", steps=10_000_000, checkpoint_every=10_000_000)
    over, unheard = threading.Event(), threading.Event()

    def cancel() -> None:
        while reached_step(trial.folder) < 200 and not over.wait(0.1):
            pass
        _thread.interrupt_main()
        if not over.wait(20.0):
            unheard.set()
            os.kill(os.getpid(), signal.SIGTERM)

    canceller = threading.Thread(target=cancel)
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        canceller.start()
        assert run_trial(trial) == {"state": "interrupted"}
    finally:
        over.set()
        canceller.join()
        signal.signal(signal.SIGINT, former)
    assert not unheard.is_set()
    assert checkpoint_step(trial.folder) >= 200


def test_a_trial_that_is_done_is_left_alone(done: Task) -> None:
    before = (done.folder / RESULT).stat().st_mtime_ns
    lock = (done.folder / "run.lock").stat().st_mtime_ns
    assert run_trial(done) == {"state": "done"}
    assert (done.folder / RESULT).stat().st_mtime_ns == before
    assert (done.folder / "run.lock").stat().st_mtime_ns == lock


def test_a_result_of_other_games_or_an_earlier_checkpoint_does_not_count(
    done: Task, tmp_path: Path
) -> None:
    assert result_of(replace(done, episodes=3)) is None
    assert result_of(replace(done, noise=("off",))) is None
    copy = tmp_path / "copy"
    shutil.copytree(done.folder, copy)
    (copy / "checkpoints" / f"step_{checkpoint_step(copy):09d}").rename(
        copy / "checkpoints" / "step_000000999"
    )
    assert result_of(replace(done, folder=copy)) is None
    (copy / RESULT).write_text('{"step": 4')
    assert result_of(replace(done, folder=copy)) is None


def test_a_trial_that_was_cut_comes_to_the_same_result(done: Task, tmp_path: Path) -> None:
    cut = task(tmp_path / "run")
    for event in train(config.from_yaml(cut.config_text, "cut"), cut.folder):
        if event.step >= 250:
            break
    assert 250 <= reached_step(cut.folder) < 400
    assert run_trial(cut) == {"state": "done"}
    assert result_of(cut) == result_of(done)


def test_what_a_kill_leaves_while_a_folder_is_made_is_no_hindrance(
    done: Task, tmp_path: Path
) -> None:
    early = task(tmp_path / "run")
    (early.folder / "checkpoints").mkdir(parents=True)
    (early.folder / "run.lock").write_text("process 1 on nowhere\n")
    assert run_trial(early) == {"state": "done"}
    assert result_of(early) == result_of(done)


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    theirs = task(tmp_path / "run")
    theirs.folder.mkdir()
    (theirs.folder / "thesis.txt").write_text("years of work")
    answer = run_trial(theirs)
    assert answer["state"] == "failed"
    assert "not empty" in answer["reason"]
    assert [one.name for one in theirs.folder.iterdir()] == ["thesis.txt"]


def test_two_processes_do_not_write_one_folder(done: Task, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(done.folder, copy)
    (copy / RESULT).unlink()
    with RunFolder.open(copy).lock():
        answer = run_trial(replace(done, folder=copy))
    assert answer["state"] == "failed"
    assert f"in use by process {os.getpid()}" in answer["reason"]


def test_a_loss_that_diverges_is_told_apart(tmp_path: Path) -> None:
    answer = run_trial(task(tmp_path / "run", learning_rate=1e30))
    assert answer["state"] == "diverged"
    assert "nan_" in answer["reason"]


def test_a_task_of_another_version_is_refused(tmp_path: Path) -> None:
    answer = run_trial(replace(task(tmp_path / "run"), version="9.9"))
    assert answer["state"] == "failed"
    assert "expected 9.9" in answer["reason"]
    assert not (tmp_path / "run").exists()


def test_a_full_disk_fails_the_trial_and_keeps_what_was_saved(done: Task, tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        # No file may grow beyond this: the checkpoint's arrays are larger.
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        answer = run_trial(task(tmp_path / "full"))
        (tmp_path / "answer.json").write_text(json.dumps(answer))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert answer["state"] == "failed"
    assert "too large" in answer["reason"].lower()
    # With room again the same task comes to its end.
    assert run_trial(task(tmp_path / "full")) == {"state": "done"}
    assert result_of(task(tmp_path / "full")) == result_of(done)
