"""A lock file: one process at a time, and free as soon as that process is gone."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from .errors import RunError


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

    def acquire(self, *, new: bool = False) -> None:
        """Make the file where it is missing, and lock it; with `new` it must be missing.

        Does nothing where this object holds the lock already. Raises InUse where another one does,
        and OSError where the file cannot be made or written.
        """
        if self._descriptor is not None:
            return
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | (os.O_EXCL if new else 0)
        descriptor = os.open(self.path, flags, 0o644)
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
        self._descriptor = descriptor
        _held.add(self)

    def release(self) -> None:
        """Free the lock, where it is held; the file stays."""
        if self._descriptor is not None:
            _held.discard(self)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def holder(self) -> str | None:
        """Return who holds the lock, None where nobody does; leaves the file as it is."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _named(descriptor)
        finally:
            os.close(descriptor)
        return None


def _named(descriptor: int) -> str:
    return os.read(descriptor, 200).decode(errors="replace").strip() or "another process"


_held: set[Lock] = set()


def _release_in_child() -> None:
    # A flock belongs to the open file, which a forked child shares: a worker that outlives its
    # parent would keep the lock. Closing the child's copy leaves the parent's lock alone.
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_release_in_child)
