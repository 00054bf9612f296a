"""The program around the commands: what it prints where, numbers below zero, signals, games."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from noisynet.assemble import start
from noisynet.cli import main
from noisynet.runs import checkpoint, config, open_run

SMALL = {"steps": 300, "warmup_steps": 150, "environments": 2, "batch_size": 16, "threads": 1}

GAMES = '''
import ctypes
import os
import time

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from noisynet.envs import ChainEnvironments
from noisynet.training import hang_guard


class Game(gymnasium.Env):
    observation_space = Box(-1, 1, (3,), np.float32)
    action_space = Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(3, np.float32), 1.0, self.steps == 10, False, {}


class Prints(Game):
    def step(self, action):
        print("a step")
        return super().step(action)


class Exits(Game):
    taken = 0

    def step(self, action):
        Exits.taken += 1
        if Exits.taken > 101:
            raise SystemExit(7)
        return super().step(action)


class Hangs(Exits):
    def step(self, action):
        if Exits.taken > 100:
            time.sleep(1000)
        return super().step(action)


class Closes(Game):
    def close(self):
        raise OSError("no door")


def short():
    return gymnasium.wrappers.TimeLimit(Game(), 6)


class Deaf(Exits):
    """Hangs in C code that no signal interrupts: a lock that is taken twice."""

    def step(self, action):
        if Exits.taken > 100:
            hang_guard.PATIENCE_SECONDS = 2.0
            lock, library = ctypes.create_string_buffer(256), ctypes.CDLL(None)
            library.pthread_mutex_lock(lock)
            print("deaf now", flush=True)
            library.pthread_mutex_lock(lock)
        return super().step(action)


class Vector(ChainEnvironments):
    taken = 0

    def step(self, actions):
        Vector.taken += 1
        if Vector.taken > 80:
            self.fail()
        return super().step(actions)


class HangingVector(Vector):
    def fail(self):
        time.sleep(1000)


class ExitingVector(Vector):
    def fail(self):
        raise SystemExit(7)


def hanging_vector(count, seed):
    return HangingVector(4, count, seed=seed)


def exiting_vector(count, seed):
    return ExitingVector(4, count, seed=seed)
'''


@pytest.fixture(autouse=True)
def _games(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Users' environments, in the folder where commands run."""
    (tmp_path / "some_games.py").write_text(GAMES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "some_games", raising=False)


def trained(name: str, path: Path) -> Path:
    return start(config.load(f"some_games:{name}", SMALL), path).folder


def program(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "noisynet", *arguments]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    return subprocess.Popen(command, env=environment, **options)


def test_json_stands_alone_beside_a_game_that_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained("Prints", tmp_path / "run")
    capsys.readouterr()
    assert main(["evaluate", str(run), "--episodes", "1", "--json", "--trust"]) == 0
    output, errors = capsys.readouterr()
    assert json.loads(output)["returns"] == [10.0]
    assert errors.startswith("a step\n")


def test_a_program_that_calls_a_command_keeps_its_standard_output(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    text = "from noisynet.cli import main; main(['runs', '--json']); print('after')"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == '{"runs": [], "unreadable": []}\nafter\n'


def test_whole_numbers_are_read_as_those_of_the_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained("Game", tmp_path / "run")
    assert main(["resume", str(run), "--steps", "4e2", "--trust"]) == 0
    capsys.readouterr()
    options = ["--episodes", "2e0", "--steps", "1e3", "--seed", "1_0", "--json", "--trust"]
    assert main(["evaluate", str(run), *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["episodes"], found["seed"]) == (2, 10)
    for wrong in ("1.5", "1e400", "nan", "0", "2e9"):
        with pytest.raises(SystemExit):
            main(["evaluate", str(run), "--episodes", wrong])
        assert f"--episodes: got '{wrong}', expected a whole number" in capsys.readouterr().err


def test_games_that_reach_their_limit_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(trained("short", tmp_path / "run"))
    capsys.readouterr()
    said = "3 of 3 games reached the limit of 6 steps"
    assert main(["evaluate", run, "--episodes", "3", "--trust"]) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == [
        said, "returns: 6 6 6", "lengths in steps: 6 6 6",
    ]  # fmt: skip
    assert main(["evaluate", run, "--episodes", "3", "--trust", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["lengths"], result["cut"]) == ([6, 6, 6], 3)
    page = tmp_path / "page.html"
    options = ["--episodes", "3", "--out", str(page), "--trust"]
    assert main(["report", run, *options]) == 0
    assert f"run, noise off: {said}" in page.read_text()

    whole = str(trained("Prints", tmp_path / "whole"))
    capsys.readouterr()
    assert main(["evaluate", whole, "--episodes", "3", "--trust", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["lengths"], result["cut"]) == ([10, 10, 10], 0)


def test_a_home_folder_is_meant_by_its_sign(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert main(["train", "Chain-5", "--steps", "20", "--out=~/run"]) == 0
    assert open_run(tmp_path / "home" / "run").newest_checkpoint() is not None
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("number", ["-1e38", "-.5", "-1_000", "-2.5E+3", "-inf"])
def test_numbers_below_zero_need_no_equals_sign(
    number: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "Chain-5", "--steps", number, "--out", str(tmp_path / "run")]) == 2
    value = float(number)
    assert f"--steps: got {int(value) if '_' in number else value}" in capsys.readouterr().err


def test_what_a_terminal_cannot_show_is_replaced(tmp_path: Path) -> None:
    run = start(config.load("cartpole", SMALL), tmp_path / "run").folder
    output, errors = program(
        "doctor", str(run), env={"PYTHONIOENCODING": "latin-1"}, encoding="latin-1"
    ).communicate()
    assert "? of 2 layers is in it" in output
    assert errors == ""


def test_a_full_disk_behind_standard_output_ends_training_in_good_order(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        process = program("train", "Chain-5", "--steps", "400", "--out", "run", stdout=full)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.splitlines()[0] == "Stopped at step 0 and saved."
    assert main(["resume", "run"]) == 0


def test_a_full_disk_while_something_is_measured_is_no_other_end(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        options = ["--steps", "400", "--precision", "auto", "--out", "run"]
        process = program("train", "Chain-5", *options, stdout=full)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.splitlines()[0] == "Stopped at step 0 and saved."


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--help"], ["evaluate", "--help"], ["train", "--help"]])
def test_a_help_that_cannot_be_written_is_one_line_and_a_closed_pipe_none(
    arguments: list[str], unbuffered: str
) -> None:
    with Path("/dev/full").open("w") as full:
        process = program(*arguments, stdout=full, env={"PYTHONUNBUFFERED": unbuffered})
        _, errors = process.communicate()
    # Without a buffer argparse swallows it.
    swallowed = bool(unbuffered) and len(arguments) > 1
    assert process.returncode == (0 if swallowed else 1)
    assert errors.count("\n") == (not swallowed)
    assert "No space left on device" in errors or swallowed

    process = program(*arguments, env={"PYTHONUNBUFFERED": unbuffered})
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 200
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_an_interrupt_ends_once(tmp_path: Path) -> None:
    """At first, and twice: the second comes while the run is being closed."""
    process = program("train", "Chain-5", "--steps", "10_000_000", "--out", "early")
    maps = Path(f"/proc/{process.pid}/maps")
    until(lambda: "pydantic_core" in maps.read_text())  # on its way to torch, which takes seconds
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate()
    assert errors == ""
    assert process.returncode in (130, -signal.SIGINT)
    # On a busy machine it comes when training has begun.
    assert not output or output.splitlines()[-2].endswith("and saved.")
    process = program("train", "Chain-5", "--steps", "10_000_000", "--out", "run")
    metrics = tmp_path / "run" / "metrics.jsonl"
    until(lambda: metrics.exists() and metrics.stat().st_size > 0)
    for _ in range(6):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    output, errors = process.communicate()
    assert errors == ""
    assert process.returncode == 130
    assert output.splitlines()[-2].endswith("and saved.")


@pytest.mark.parametrize(
    ("name", "failed", "step"),
    [
        ("Hangs", "environment 1 of 2 failed", 100),
        ("hanging_vector", "failed", 150),
    ],
)
def test_a_game_that_hangs_is_named_and_what_was_learned_is_saved(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    failed: str,
    step: int,
) -> None:
    monkeypatch.setattr("noisynet.envs.calls.HANG_SECONDS", 0.5)
    monkeypatch.setattr("noisynet.training.interrupts.LOOK_SECONDS", 0.1)
    end = threading.Timer(3.0, os.kill, [os.getpid(), signal.SIGTERM])
    end.daemon = True
    former = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: None)
    end.start()
    try:
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
        assert main(["train", f"some_games:{name}", *arguments, "--out", "run"]) == 2
    finally:
        signal.signal(signal.SIGTERM, former)
    said = capsys.readouterr().err
    assert f"some_games:{name}: {failed}: no answer from step for" in said
    assert f"the run was saved at step {step}" in said
    assert checkpoint.newest_step(tmp_path / "run" / "checkpoints") == step


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is laid out as on Linux")
def test_a_game_that_hangs_in_c_code_is_named_and_the_process_ends(tmp_path: Path) -> None:
    fields = {**SMALL, "checkpoint_every": 60}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in fields.items()]
    process = program("train", "some_games:Deaf", *arguments, "--out", "run")
    assert process.stdout is not None
    for line in process.stdout:
        if line == "deaf now\n":
            break
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    said = r"some_games:Deaf: environment 1 of 2 failed: no answer from step for \d s: no signal "
    assert re.fullmatch(said + r"reaches it, .* the last checkpoint stays\n", errors)
    assert checkpoint.newest_step(tmp_path / "run" / "checkpoints") == 60


def test_a_game_that_leaves_python_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    assert main(["train", "some_games:Exits", *arguments, "--out", "run"]) == 2
    said = capsys.readouterr().err
    lines = [number for number, line in enumerate(GAMES.splitlines(), 1) if "SystemExit(7)" in line]
    failed = f"step raised SystemExit: 7 (some_games.py:{lines[0]})"
    assert f"environment 1 of 2 failed: {failed}; the run was saved" in said
    assert main(["train", "some_games:exiting_vector", *arguments, "--out", "vector"]) == 2
    said = capsys.readouterr().err
    failed = f"step raised SystemExit: 7 (some_games.py:{lines[1]})"
    assert f"some_games:exiting_vector: failed: {failed}; the run was saved" in said
    assert main(["train", "sys:exit", "--out", "other"]) == 2
    assert "sys:exit: cannot be made: SystemExit" in capsys.readouterr().err


def test_a_game_that_cannot_be_closed_costs_a_warning(tmp_path: Path) -> None:
    said = "some_games:Closes: environment [01]: close raised OSError: no door"
    with pytest.warns(RuntimeWarning, match=said) as warned:
        trained("Closes", tmp_path / "run")
    assert len(warned) == 2


COMMANDS = [
    ["evaluate"], ["watch", "--steps", "2"], ["doctor"], ["resume"], ["report", "--episodes", "0"],
]  # fmt: skip


def test_code_that_a_run_names_is_not_imported_unless_it_is_trusted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained("Game", tmp_path / "run")
    found = open_run(run).trained()
    found.state["config"]["environment"]["environment"] = "not_mine:make"
    checkpoint.write(run / "checkpoints", found.step, found.arrays, found.state)
    file = run / "config.yaml"
    file.write_text(file.read_text().replace("some_games:Game", "not_mine:make"))
    (tmp_path / "not_mine.py").write_text("raise SystemExit('imported')")
    capsys.readouterr()
    for command, *options in COMMANDS:
        assert main([command, str(run), *options]) == 2
        output, said = capsys.readouterr()
        assert output == ""
        assert "its environment is not_mine:make: that imports not_mine" in said
        assert f"({tmp_path / 'not_mine.py'}) and runs it; --trust allows it" in said
        assert "not_mine" not in sys.modules
    assert main(["evaluate", str(run), "--trust"]) == 2
    assert "importing not_mine raised SystemExit: imported" in capsys.readouterr().err
    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    for answer, said in (("n\n", "which was not allowed"), ("y\n", "raised SystemExit: imported")):
        monkeypatch.setattr(sys.stdin, "readline", lambda answer=answer: answer, raising=False)
        assert main(["evaluate", str(run)]) == 2
        assert said in capsys.readouterr().err
