"""A lock file: one process at a time, and free as soon as that process is gone."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Self

from ..disk import open_regular, read_file
from .errors import RunError

try:
    import fcntl
except ImportError as error:
    raise ImportError("noisynet.runs needs Linux or macOS (on Windows: WSL)") from error

_HOLDER = re.compile(r"process (\d+) on (.+)")


class InUse(RunError):
    """A lock that another process, or another `Lock` in this one, holds."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path.parent}: in use by {holder}")
        self.holder = holder


class Lock:
    """An exclusive lock on a file, which names its last holder: `process 7 on host`.

    A forked child does not hold its parent's locks.
    """

    def __init__(self, path: Path) -> None:
        """Name the file; nothing is made or locked before `acquire`, or entering a `with`."""
        self.path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Make the file if it is missing, and lock it.

        Does nothing if this object already holds the lock. Raises InUse if another one does, and
        OSError if the file cannot be made or written.
        """
        if self._descriptor is not None:
            return
        descriptor = self._lock()
        while not _is_at(self.path, descriptor):
            # Removed since it was opened, with a run that could not begin: the next process would
            # make another file, and lock that.
            os.close(descriptor)
            descriptor = self._lock()
        self._descriptor = descriptor
        _held.add(self)

    def _lock(self) -> int:
        """Open the file, lock it and write the holder into it; return its descriptor."""
        descriptor = open_regular(self.path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        except BlockingIOError:
            holder = _named(descriptor)
            os.close(descriptor)
            raise InUse(self.path, holder) from None
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def release(self) -> None:
        """Free the lock, if it is held; the file stays."""
        if self._descriptor is not None:
            _held.discard(self)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def holder(self) -> str | None:
        """Return who holds the lock, or None if nobody does; leave the file as it is."""
        try:
            descriptor = open_regular(self.path)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _named(descriptor)
        finally:
            os.close(descriptor)
        return None


def is_locked(file: Path) -> bool:
    """Return whether a process on this machine holds the lock on a file, without touching the lock.

    Acquiring it as a test, even briefly, could make a writer fail that tries at that moment.
    """
    try:
        found = file.stat()
        holder = _HOLDER.match(read_file(file).decode(errors="replace"))
    except OSError:
        return False
    try:
        held = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return holder is not None and _lives(int(holder[1]), holder[2].strip())
    process = int(holder[1]) if holder else None
    return any(_is_lock_on(found, process, line) for line in held)


def _is_lock_on(file: os.stat_result, process: int | None, line: str) -> bool:
    """Return whether a line of /proc/locks is a lock on `file`, which names `process` as holder.

    Other file systems have files with the same inode, so the device must match too. On overlayfs
    and btrfs, `stat` names another device than the kernel; there the process that holds the lock
    must be `process` instead.
    """
    parts = line.split()
    if len(parts) < 6 or parts[1] != "FLOCK":
        return False
    *device, inode = parts[5].split(":")
    if inode != str(file.st_ino):
        return False
    same = [int(part, 16) for part in device] == [os.major(file.st_dev), os.minor(file.st_dev)]
    return same or parts[4] == str(process)


def _lives(process: int, host: str) -> bool:
    if host != socket.gethostname():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Return whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _named(descriptor: int) -> str:
    return os.read(descriptor, 200).decode(errors="replace").strip() or "another process"


_held: set[Lock] = set()


def _release_in_child() -> None:
    # A flock belongs to the open file, which a forked child shares: a worker that outlives its
    # parent would keep the lock. Closing the child's copy leaves the parent's lock alone.
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_release_in_child)
