"""A lock file: one holder, named, who loses it with its process and not by a fork."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from noisynet.runs.locks import InUse, Lock, _is_lock_on, is_locked

HOLDER = """
import sys
from pathlib import Path
from noisynet.runs.locks import Lock

with Lock(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_one_holder_at_a_time_and_it_is_named(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "a.lock"), Lock(tmp_path / "a.lock")
    assert second.holder() is None
    with first:
        first.acquire()
        assert first.held
        assert f"process {os.getpid()} on " in str(second.holder())
        with pytest.raises(InUse, match=rf"{tmp_path}: in use by process {os.getpid()} on "):
            second.acquire()
        assert not second.held
    assert not first.held
    assert second.holder() is None
    with second:
        assert second.held


def test_a_link_is_not_followed_and_a_fifo_not_waited_for(tmp_path: Path) -> None:
    theirs, link, fifo = tmp_path / "thesis.txt", tmp_path / "a.lock", tmp_path / "b.lock"
    theirs.write_text("years of work")
    link.symlink_to(theirs)
    os.mkfifo(fifo)
    with pytest.raises(OSError, match="it is a link"):
        Lock(link).acquire()
    assert theirs.read_text() == "years of work"
    for ask in (Lock(fifo).acquire, Lock(fifo).holder):
        with pytest.raises(OSError, match="it is no regular file"):
            ask()
    assert not is_locked(fifo)


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    file = tmp_path / "a.lock"
    command = [sys.executable, "-c", HOLDER, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        assert f"process {process.pid} on " in str(Lock(file).holder())
        process.kill()
        process.wait()
        with Lock(file):
            pass


def test_a_forked_child_neither_holds_nor_frees_its_parents_lock(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "a.lock")
    (told, tell), (ending, end) = os.pipe(), os.pipe()
    with lock:
        child = os.fork()
        if child == 0:
            os.write(tell, b"y" if lock.held else b"n")
            os.read(ending, 1)  # so that it outlives the parent's lock
            os._exit(0)
        assert os.read(told, 1) == b"n"
        assert Lock(lock.path).holder() is not None
    assert Lock(lock.path).holder() is None
    os.write(end, b"x")
    os.waitpid(child, 0)
    for descriptor in (told, tell, ending, end):
        os.close(descriptor)


def test_a_file_that_was_removed_before_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a process whose run could not begin."""
    lock = Lock(tmp_path / "a.lock")
    flock, removed = fcntl.flock, []

    def after_removal(descriptor: int, operation: int) -> None:
        if not removed:
            lock.path.unlink()
            removed.append(descriptor)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", after_removal)
    with lock, pytest.raises(InUse):
        Lock(lock.path).acquire()


def test_a_look_at_a_lock_leaves_it_free_to_take(tmp_path: Path) -> None:
    file = tmp_path / "a.lock"
    assert not is_locked(file)
    with Lock(file):
        assert is_locked(file)
    assert not is_locked(file)


def test_a_lock_of_the_same_inode_elsewhere_is_another(tmp_path: Path) -> None:
    found = tmp_path.stat()
    here = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    inode = found.st_ino

    def line(device: str, process: int = 77) -> str:
        return f"3: FLOCK  ADVISORY  WRITE {process} {device}:{inode} 0 EOF"

    assert _is_lock_on(found, 1, line(here))
    assert not _is_lock_on(found, 1, line("ff:fe"))
    assert _is_lock_on(found, 77, line("ff:fe"))  # as overlayfs has it
    assert not _is_lock_on(found, 77, line(here).replace("FLOCK", "POSIX"))
