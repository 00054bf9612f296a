"""An interrupted and resumed run is the uninterrupted one, bit for bit."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from noisynet.assemble import resume, start
from noisynet.evaluation.agent import evaluate_run
from noisynet.runs import RunError, checkpoint, config, open_run
from noisynet.training import Outcome

from .same_run import Crash, CrashAt, assert_same_run, metrics
from .small_runs import small_config

STRETCHED = (
    "the schedule of final_learning_rate ends at the last step: from now on it is that of a "
    "run of {steps} steps, not of {former} as before"
)


class Notes(CrashAt):
    """Listen for the notes alone."""

    def __init__(self) -> None:
        super().__init__(10**12)


# Before the first checkpoint, in the warm-up's wake, and twice in one run.
@pytest.mark.parametrize("crashes", [[200], [500], [1200], [700, 1500]])
def test_a_crashed_run_goes_on_as_if_nothing_had_happened(
    finished: Outcome, tmp_path: Path, crashes: list[int]
) -> None:
    run = tmp_path / "run"
    with pytest.raises(Crash):
        start(small_config(), run, [CrashAt(crashes[0])])
    for step in crashes[1:]:
        with pytest.raises(Crash):
            resume(run, [CrashAt(step)])
    outcome = resume(run)
    assert outcome.step == finished.step
    assert_same_run(run, finished.folder)


def test_the_rival_resumes_exactly_too(tmp_path: Path) -> None:
    chosen = small_config("cartpole-epsilon", epsilon_steps=1000)
    start(chosen, tmp_path / "whole")
    with pytest.raises(Crash):
        start(chosen, tmp_path / "cut", [CrashAt(1100)])
    resume(tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("preset", ["cartpole", "cartpole-noisy-a2c", "pqn-cartpole"])
def test_a_run_with_every_cure_resumes_exactly(preset: str, tmp_path: Path) -> None:
    cures = {"redo_every": 7, "dormant_threshold": 0.3, "shrink_every": 40, "reset_every": 60}
    off_policy = preset == "cartpole"
    own = {} if off_policy else {"steps": 4000, "checkpoint_every": 900, "log_every": 4}
    if off_policy:
        chosen = small_config(preset, torso_hidden=[8], **cures)
    else:
        chosen = config.load(preset, {"seed": 3, "threads": 1, "torso_hidden": [8], **cures, **own})
    start(chosen, tmp_path / "whole")
    with pytest.raises(Crash):
        start(chosen, tmp_path / "cut", [CrashAt(1000)])
    resume(tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    assert max(record.get("revived", 0) for record in metrics(tmp_path / "cut")) > 0


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "noisynet", *arguments]


def wait_for_checkpoint(run: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if checkpoint.newest(run / "checkpoints") is not None:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("no checkpoint within a minute")


def train_in_a_process(run: Path) -> subprocess.Popen[str]:
    options = {
        "steps": 2000, "warmup-steps": 300, "checkpoint-every": 450, "log-every": 20,
        "replay-capacity": 1000, "batch-size": 32, "seed": 3,
    }  # fmt: skip
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return subprocess.Popen(
        command("train", "cartpole", "--out", str(run), *flags),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_kill_9_loses_nothing_but_the_steps_since_the_checkpoint(
    finished: Outcome, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = train_in_a_process(run)
    wait_for_checkpoint(run, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    resume(run)
    assert_same_run(run, finished.folder)


def test_ctrl_c_saves_and_says_how_to_go_on(finished: Outcome, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = train_in_a_process(run)
    wait_for_checkpoint(run, process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert errors == ""
    if process.returncode == 0:
        pytest.skip("the run had ended before the interrupt")
    assert process.returncode == 130
    assert f"noisynet resume {run}" in output
    resume(run)
    assert_same_run(run, finished.folder)


def test_games_that_cannot_be_saved_start_anew_and_the_run_says_so(tmp_path: Path) -> None:
    pytest.importorskip("ale_py", reason="Atari is an extra")
    chosen = config.load(
        "pong",
        {
            "environments": 2, "steps": 400, "warmup_steps": 100, "batch_size": 8,
            "update_every": 20, "replay_capacity": 300, "checkpoint_every": 100,
            "head_hidden": 16, "precision": "float32", "threads": 1,
        },
    )  # fmt: skip
    run = tmp_path / "run"
    start(chosen.replaced(steps=200), run)
    text = (run / "config.yaml").read_text().replace("steps: 200\n", "steps: 400\n")
    (run / "config.yaml").write_text(text)
    notes = Notes()
    outcome = resume(run, [notes])
    assert outcome.step >= 400
    assert any("start anew" in note for note in notes.notes)


def test_resume_refuses_what_is_no_whole_run(finished: Outcome, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder"):
        resume(tmp_path / "nowhere")
    damaged = tmp_path / "damaged"
    shutil.copytree(finished.folder, damaged)
    newest = checkpoint.newest(damaged / "checkpoints")
    assert newest is not None
    arrays = newest / "arrays.safetensors"
    arrays.write_bytes(arrays.read_bytes()[:-10])
    with pytest.raises(RunError) as caught:
        resume(damaged)
    assert "\n" not in str(caught.value)
    assert "arrays.safetensors" in str(caught.value)

    lost = tmp_path / "lost"
    shutil.copytree(finished.folder, lost)
    (lost / "replay" / "frames.bin").unlink()
    with pytest.raises(RunError, match=r"frames\.bin"):
        resume(lost)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("loop", {"environments": {}}, "it lacks 'games'"),
        ("loop", {"environments": {"id": "CartPole-v1", "games": 5}}, "has no len"),
        ("agent", {"action_generator": {}}, "PCG64"),
    ],
)
def test_a_state_that_does_not_fit_is_one_line(
    finished: Outcome, tmp_path: Path, part: str, change: dict[str, Any], message: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    found = open_run(run).trained()
    state = {**found.state, part: {**found.state[part], **change}}
    checkpoint.write(run / "checkpoints", found.step, found.arrays, state)
    with pytest.raises(RunError, match=f"does not fit its config: .*{message}"):
        resume(run)


@pytest.mark.parametrize(
    ("field", "message", "evaluates"),
    [
        ("noise_kind: independent", "noise: got a draw of 256 numbers, expected ", False),
        ("optimizer: rmsprop", "optimizer: got exp_avg, .*, RMSprop expected grad_avg, ", True),
        ("prioritised: true", "without priorities, and prioritised is True", True),
    ],
)
def test_a_changed_config_beside_a_checkpoint_of_before_it_held_its_config_is_one_line(
    finished: Outcome, tmp_path: Path, field: str, message: str, evaluates: bool
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    found = open_run(run).trained()
    older = {key: value for key, value in found.state.items() if key != "config"}
    checkpoint.write(run / "checkpoints", found.step, found.arrays, older)
    file = run / "config.yaml"
    before = file.read_text()
    text = re.sub(rf"\b{field.partition(':')[0]}: \w+\n", f"{field}\n", before)
    assert text != before
    file.write_text(text)
    with pytest.raises(RunError, match=message):
        resume(run)
    if evaluates:
        assert evaluate_run(run, episodes=1)["episodes"] == 1
    else:
        with pytest.raises(RunError, match=f"does not fit its config: {message}"):
            evaluate_run(run, episodes=1)


def test_what_may_change_between_sessions_is_noted_and_acts(
    finished: Outcome, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    config_file = run / "config.yaml"
    text = config_file.read_text()
    config_file.write_text(
        text.replace("\n  steps: 2000\n", "\n  steps: 2100\n").replace("n_step: 10", "n_step: 999")
    )
    with pytest.raises(RunError, match=r"n_step: .* expected at least stack"):
        resume(run)
    config_file.write_text(
        text.replace("\n  steps: 2000\n", "\n  steps: 2100\n").replace("n_step: 10", "n_step: 2")
    )
    notes = Notes()
    assert resume(run, [notes]).step >= 2100
    said = "since the checkpoint: "
    assert notes.notes == [
        f"{said}n_step was 10, is 2",
        f"{said}steps was 2000, is 2100",
        STRETCHED.format(steps="2,100", former="2,000"),
    ]
    assert open_run(run).trained().state["config"]["training"]["steps"] == 2100


def test_a_rollout_left_by_overlap_is_learned_in_a_session_without_it(tmp_path: Path) -> None:
    fields = {"environments": 4, "rollout_steps": 5, "minibatches": 4, "epochs": 1, "threads": 1}
    chosen = config.load("pqn-cartpole", {**fields, "steps": 200, "overlap": True, "device": "cpu"})
    start(chosen, tmp_path / "run")
    assert open_run(tmp_path / "run").trained().state["agent"]["rollout"]["done"] == 0
    resume(tmp_path / "run", changes={"steps": 400, "overlap": False})
    start(chosen.replaced(steps=400, overlap=False), tmp_path / "plain")
    updates = [
        open_run(tmp_path / name).trained().state["agent"]["updates"] for name in ("run", "plain")
    ]
    assert updates[0] == updates[1]


@pytest.mark.parametrize("checkpoint_every", [400, 100_000])
def test_a_run_that_could_never_save_begins_again(
    finished: Outcome,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    checkpoint_every: int,
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as full:
        full.setattr(checkpoint, "write_file", no_space)
        with pytest.raises(RunError, match="cannot be written: No space"):
            start(small_config(checkpoint_every=checkpoint_every), run)
    assert resume(run).step == finished.step
    assert metrics(run) == metrics(finished.folder)


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_run_whose_checkpoints_were_removed_does_not_begin_again(
    finished: Outcome, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    files = [run / "metrics.jsonl", run / "replay" / "frames.bin"]
    before = [file.stat().st_mtime_ns for file in files]
    with pytest.raises(RunError, match=r"holds no checkpoint, and the metrics reach step 2,00\d"):
        resume(run)
    assert [file.stat().st_mtime_ns for file in files] == before
    (run / "metrics.jsonl").unlink()
    assert resume(run).step == finished.step


def test_links_in_a_received_run_are_not_written_through(finished: Outcome, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name in ("run.lock", "replay/frames.bin", "metrics.jsonl"):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(finished.folder, run)
        # A run that is over is not written to at all.
        text = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(text.replace("\n  steps: 2000\n", "\n  steps: 2100\n"))
        theirs = tmp_path / "theirs"
        (run / name).rename(theirs)
        (run / name).symlink_to(theirs)
        before = theirs.read_bytes(), theirs.stat().st_mtime_ns
        with pytest.raises(RunError, match=r"link|no regular file"):
            resume(run)
        assert (theirs.read_bytes(), theirs.stat().st_mtime_ns) == before


def test_other_versions_than_the_run_was_made_with_are_noted(
    finished: Outcome, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    heard: list[list[str]] = []

    class Notes:
        def started(self, folder: Path, config: Any, step: int, notes: list[str]) -> None:
            heard.append(notes)

        def on_event(self, event: Any, elapsed: float) -> None: ...

        def closed(self) -> None: ...

    file = folder / "config.yaml"
    text = file.read_text().replace("\n  steps: 2000\n", "\n  steps: 2100\n")
    file.write_text(text)
    resume(folder, [Notes()])
    text = text.replace("\n  steps: 2100\n", "\n  steps: 2200\n")
    file.write_text(re.sub(r"(  torch: ).*", r"\g<1>1.0.0", text))
    resume(folder, [Notes()])
    steps = "since the checkpoint: steps was"
    assert heard == [
        [f"{steps} 2000, is 2100", STRETCHED.format(steps="2,100", former="2,000")],
        [
            f"{steps} 2100, is 2200",
            STRETCHED.format(steps="2,200", former="2,100"),
            f"the run was made with torch 1.0.0 (now {torch.__version__})",
        ],
    ]
