"""A run's folder: what may become one, what is one, and who may write it."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from noisynet.runs import checkpoint, folder
from noisynet.runs.errors import NewerFormat, RunError
from noisynet.runs.folder import RunFolder, default_path
from noisynet.runs.locks import Lock

CONFIG = "# a comment\ngame: pong\nagent:\n  format: rainbow\n  steps: 10\n"
STORED = "format: 1\n" + CONFIG
NOW = datetime(2026, 11, 21, 14, 22, 33)

SOURCE = Path(folder.__file__).parents[1]
ALONE = f"""
import os, sys, time, types
noisynet = types.ModuleType("noisynet")
noisynet.__path__ = [{str(SOURCE)!r}]
sys.modules["noisynet"] = noisynet
from noisynet.runs.folder import RunFolder
"""


def test_a_run_is_read_back_as_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "pong"
    with RunFolder.create(path, CONFIG) as made:
        assert made.locked
        assert made.checkpoints.is_dir()
        assert made.config_text == STORED
    read = RunFolder.open(path)
    assert not read.locked
    assert read.config_text == STORED
    assert read.config_file.read_text() == STORED
    assert (read.metrics_file, read.checkpoints, read.replay) == (
        path / "metrics.jsonl",
        path / "checkpoints",
        path / "replay",
    )


def test_a_runs_own_config_makes_another_run(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "one", CONFIG) as one:
        stored = one.config_file.read_text()
    with RunFolder.create(tmp_path / "two", stored) as two:
        assert two.config_text == STORED
        assert two.config_file.read_text() == stored


def test_an_empty_folder_takes_a_run_and_a_full_one_does_not(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, CONFIG).close()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RunError, match=r"not empty .* a new run takes a new or empty folder"):
        RunFolder.create(tmp_path, CONFIG)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("left", [["run.lock"], ["run.lock", "config.yaml.tmp"]])
def test_what_a_kill_left_before_there_was_a_run_is_no_hindrance(
    tmp_path: Path, left: list[str]
) -> None:
    for name in left:
        (tmp_path / name).write_text("process 1 on nowhere\n")
    checkpoint.begin(tmp_path / "checkpoints")
    with pytest.raises(RunError, match=r"no config.yaml \(it was killed .* can make it anew"):
        RunFolder.open(tmp_path)
    with RunFolder.create(tmp_path, CONFIG):
        assert RunFolder.open(tmp_path).config_text == STORED
        with pytest.raises(RunError, match="not empty"):
            RunFolder.create(tmp_path, CONFIG)


def test_a_folder_in_which_a_run_is_being_made_is_in_use(tmp_path: Path) -> None:
    with Lock(tmp_path / "run.lock"), pytest.raises(RunError, match="in use by process"):
        RunFolder.create(tmp_path, CONFIG)


@pytest.mark.parametrize("name", ["thesis.txt", "checkpoints/step_000000001"])
def test_a_folder_that_is_refused_is_left_as_it_was(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match="not empty"):
        RunFolder.create(tmp_path, CONFIG)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("below", ["file", "file/run"])
def test_a_place_that_cannot_hold_a_run_is_one_line(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot make a run here: (File exists|Not a directory)$"):
        RunFolder.create(tmp_path / below, CONFIG)
    with pytest.raises(RunError, match="/proc/noisynet: cannot make a run here"):
        RunFolder.create("/proc/noisynet", CONFIG)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match=r"Permission denied$"):
        RunFolder.create(tmp_path / "run", CONFIG)


def test_a_failed_start_leaves_the_folder_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Path, content: bytes) -> None:
        file.write_bytes(content[:3])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(folder, "write_file", full)
        with pytest.raises(RunError, match=r"No space left on device$"):
            RunFolder.create(tmp_path, CONFIG)
    assert list(tmp_path.iterdir()) == []
    RunFolder.create(tmp_path, CONFIG).close()


@pytest.mark.parametrize("text", ["- 1\n", "{a: 1}", "a: [", "--- \na: 1\n"])
def test_a_config_that_is_no_mapping_makes_no_run(tmp_path: Path, text: str) -> None:
    with pytest.raises(RunError) as caught:
        RunFolder.create(tmp_path / "run", text)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"format: 1\na: [1,\n", "config.yaml: damaged: line 3: "),
        (b"format: 1\na: \xff\n", "config.yaml: cannot be read: not UTF-8 text"),
        (b"format: 1\na: \x00\n", "config.yaml: damaged: unacceptable character"),
        (b"", "a config is a mapping, got NoneType"),
        (b"- 1\n", "a config is a mapping, got list"),
        (b"game: pong\n", "not a run's config: .* got None"),
        (b"format: one\n", "not a run's config: .* got 'one'"),
        (b"format: true\n", "not a run's config: .* got True"),
        (b"format: 1\nobject: !!python/object/apply:os.getcwd []\n", "damaged: line 2: "),
    ],
)
def test_a_damaged_config_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(RunError, match=message) as caught:
        RunFolder.open(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_newer_format_is_said(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("format: 2\n")
    with pytest.raises(NewerFormat, match=r"format 2 comes from a newer noisynet.* up to 1$"):
        RunFolder.open(tmp_path)


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"missing: no such folder$"):
        RunFolder.open(tmp_path / "missing")
    with pytest.raises(RunError, match=r"not a run: it holds no config.yaml$"):
        RunFolder.open(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"this is a file$"):
        RunFolder.open(tmp_path / "file")


def test_a_run_that_lost_its_config_is_not_to_be_made_anew(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, "preset: pong\n").close()
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(RunError, match=r"not a run: it holds no config.yaml$"):
        RunFolder.open(tmp_path)


def test_a_second_writer_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    first = RunFolder.create(tmp_path, CONFIG)
    second = RunFolder.open(tmp_path)
    with pytest.raises(RunError, match=f"in use by process {os.getpid()} on "):
        second.lock()
    assert not second.locked
    first.close()
    first.close()
    with second.lock() as locked:
        assert locked.lock() is second
    first.lock().close()


def test_a_lock_dies_with_its_process_even_if_a_forked_worker_lives_on(tmp_path: Path) -> None:
    script = f"""{ALONE}
run = RunFolder.create(sys.argv[1], "game: pong")
worker = os.fork()
if worker == 0:
    assert not run.locked
    run.close()
    os.write(1, b"ready\\n")
    time.sleep(60)
    os._exit(0)
os.write(1, b"%d\\n" % worker)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        said = [child.stdout.readline().strip() for _ in range(2)]
        worker = int(next(word for word in said if word != "ready"))
        try:
            with pytest.raises(RunError, match=f"in use by process {child.pid} on "):
                RunFolder.open(tmp_path).lock()
            child.kill()
            child.wait()
            os.kill(worker, 0)
            RunFolder.open(tmp_path).lock().close()
        finally:
            child.kill()
            os.kill(worker, signal.SIGKILL)


def test_a_default_path_names_preset_and_time(tmp_path: Path) -> None:
    names = [default_path("pong", tmp_path / "runs", now=NOW).name for _ in range(3)]
    assert names == ["pong-20261121-142233", "pong-20261121-142233-2", "pong-20261121-142233-3"]
    path = default_path("pong", tmp_path)
    assert re.fullmatch(r"pong-\d{8}-\d{6}", path.name)
    assert abs(time.time() - path.stat().st_mtime) < 60
    RunFolder.create(path, CONFIG).close()


@pytest.mark.parametrize(
    ("preset", "name"),
    [
        ("ALE/Breakout-v5", "ALE-Breakout-v5"),
        ("../elsewhere/my config.yaml", "my-config"),
        ("..", "run"),
        ("/", "run"),
    ],
)
def test_a_default_path_stays_below_its_root(tmp_path: Path, preset: str, name: str) -> None:
    assert default_path(preset, tmp_path, now=NOW) == tmp_path / f"{name}-20261121-142233"


def test_default_paths_taken_at_once_are_all_different(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: default_path("pong", tmp_path, now=NOW), range(40)))
    assert len(set(paths)) == 40


def test_a_root_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot make a folder for the run: "):
        default_path("pong", tmp_path / "file")
