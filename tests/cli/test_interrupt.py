"""Ctrl-C at any moment of a run with sampler actors: the user is told how to go on.

Real processes, and the signal goes to their whole group, as a terminal sends it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from noisynet import samplers
from noisynet.runs import checkpoint, config

pytest.importorskip("ray", reason="Ray is an extra")

FIELDS = {
    "environments": 4, "warmup_steps": 100, "replay_capacity": 400, "batch_size": 8,
    "torso_hidden": [8], "head_hidden": 8, "checkpoint_every": 200, "threads": 1, "actors": 1,
}  # fmt: skip
PATIENCE = 300.0
"""Seconds: only to end a test that hangs."""


class Command:
    """A `noisynet` in a group of processes of its own."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "noisynet", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self.group: set[int] = set()

    def until(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not done():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end
            time.sleep(0.02)

    def starts_ray(self) -> bool:
        return any("gcs_server" in what for _, what in self.living())

    def living(self) -> Iterator[tuple[int, str]]:
        """Name the processes of the group that live."""
        for place in Path("/proc").iterdir():
            try:
                state, _, group = (place / "stat").read_text().rpartition(")")[2].split()[:3]
                if int(group) == self.process.pid and state != "Z":
                    yield int(place.name), (place / "cmdline").read_text()
            except (OSError, ValueError):
                continue

    def interrupt(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self, said: str = "") -> str:
        """Wait for the end of the whole group, and give its output; `said` are its errors."""
        output, errors = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 130, (output, errors)
        assert errors == said
        end = time.monotonic() + 60
        while left := list(self.living()):
            assert time.monotonic() < end, left
            time.sleep(0.1)
        return output

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


Start = Callable[..., Command]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start commands, of which none outlives its test."""
    begun: list[Command] = []

    def begin(*arguments: str) -> Command:
        begun.append(Command(*arguments))
        return begun[-1]

    yield begin
    for command in begun:
        command.kill()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Make a run of some 400 steps that goes on with a sampler on Ray, for ever."""
    folder = tmp_path / "run"
    chosen = config.load("cartpole", {**FIELDS, "steps": 400, "backend": "in-process"})
    samplers.start(chosen, folder)
    file = folder / "config.yaml"
    text = file.read_text().replace("backend: in-process", "backend: ray")
    file.write_text(text.replace("steps: 400\n", f"steps: {10**8}\n"))
    return folder


def saved_step(folder: Path) -> int:
    found = checkpoint.read_newest(folder / "checkpoints")
    assert found is not None
    return found.step


def test_while_ray_starts_for_a_run_that_goes_on(run: Path, start: Start) -> None:
    before = saved_step(run)
    command = start("resume", str(run))
    command.until(command.starts_ray)
    command.interrupt()
    assert command.end().splitlines() == [
        f"Stopped; saved at step {before:,}.",
        f"Continue with: noisynet resume {run}",
    ]
    assert saved_step(run) == before


def test_one_that_arrives_twice_still_ends_training_in_good_order(run: Path, start: Start) -> None:
    before = saved_step(run)
    command = start("resume", str(run))
    assert command.process.stdout is not None
    said = command.process.stdout.readline()
    while "Game " not in said:
        assert said, command.process.communicate()
        said = command.process.stdout.readline()
    command.interrupt()
    time.sleep(0.1)
    command.interrupt()
    *_, stopped, go_on = command.end().splitlines()
    after = saved_step(run)
    assert after > before
    # The second one may come when training has ended already and Ray is being stopped.
    assert stopped in (
        f"Stopped at step {after:,} and saved.",
        f"Stopped; saved at step {after:,}.",
    )
    assert go_on == f"Continue with: noisynet resume {run}"


def test_while_ray_starts_for_a_new_run(tmp_path: Path, start: Start) -> None:
    folder = tmp_path / "run"
    command = start("train", "cartpole", "--out", str(folder), "--actors", "1")
    command.until(command.starts_ray)
    command.interrupt()
    assert command.end() == "Stopped before the run began: there is nothing to resume.\n"
    assert not folder.exists()


def test_while_ray_starts_for_a_suite(tmp_path: Path, start: Start) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("environments: [Chain-6]\noverrides: {steps: 200}\n")
    command = start("suite", str(file), "--out", str(tmp_path / "out"))
    command.until(command.starts_ray)
    command.interrupt()
    assert command.end(said="noisynet suite: interrupted; repeat the command to continue\n") == ""
