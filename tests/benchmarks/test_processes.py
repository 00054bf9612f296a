"""The processes of a benchmark end with the one that started them, whatever ended it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import processes

SLEEPING = """
import os
import time
from pathlib import Path
from benchmarks.study.part import run_all

def run(task, arm, seed):
    os.write(1, b"at work\\n")  # in one piece: two processes share the pipe
    time.sleep(600)

run_all([("a", "x", 0), ("a", "x", 1)], run, Path("lines.jsonl"), {}, at_once=3)
"""
LISTENING = """
import threading
from pathlib import Path
from benchmarks.study.part import run_all
from noisynet.training.interrupts import on_interrupt

def run(task, arm, seed):
    ends = threading.Event()
    with on_interrupt(ends.set):
        print("at work", flush=True)
        ends.wait()
    print("in good order", flush=True)

run_all([("a", "x", 0)], run, Path("lines.jsonl"), {}, at_once=1)
"""
A_MODULE = """
from benchmarks.processes import run_module

run_module("working")
"""
WORKING = """
import sys
import time

print("at work", file=sys.stderr, flush=True)
time.sleep(600)
"""


def what_follows_a_kill(
    script: str, number: signal.Signals, folder: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> list[str]:
    """Return the lines of a script's processes after its own end, once all of them have ended.

    All of them hold the pipe that is read to its end here.
    """
    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", f"{root}/src:{root}:{folder}")
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
    ) as parent:
        try:
            assert parent.stdout is not None
            assert [parent.stdout.readline() for _ in range(workers)] == ["at work\n"] * workers
            parent.send_signal(number)
            lines = parent.communicate(timeout=20)[0].splitlines()
        finally:
            parent.kill()
    assert parent.returncode == -number
    return lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_busy_and_idle_end_with_their_parent(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert what_follows_a_kill(SLEEPING, number, tmp_path, monkeypatch, workers=2) == []


def test_a_run_that_hears_signals_ends_in_good_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = what_follows_a_kill(LISTENING, signal.SIGKILL, tmp_path, monkeypatch, workers=1)
    assert lines == ["in good order"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_module_ends_with_the_process_that_runs_it(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "working.py").write_text(WORKING)
    assert what_follows_a_kill(A_MODULE, number, tmp_path, monkeypatch, workers=1) == []


def test_a_module_is_run_as_python_runs_it(capfd: pytest.CaptureFixture[str]) -> None:
    assert processes.run_module("noisynet", "--version").startswith("noisynet ")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        processes.run_module("noisynet", "no-such-command")
    assert failed.value.returncode == 2
    assert "noisynet: no-such-command: no such command" in capfd.readouterr().err
