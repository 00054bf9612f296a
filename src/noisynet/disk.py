"""Writing files whole or not at all, safe from a power failure; reading only regular files.

A folder may come from someone else. Writing therefore follows no symbolic link, and reading accepts
only regular files: a FIFO or a device could make the reader wait for ever.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def open_regular(file: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file and return its descriptor; for writing, refuse a symbolic link.

    Raises OSError, also if the name belongs to anything but a regular file.
    """
    if flags & (os.O_WRONLY | os.O_RDWR):
        flags |= os.O_NOFOLLOW
    try:
        descriptor = os.open(file, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link", str(file)) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", str(file))
    return descriptor


def read_file(file: Path) -> bytes:
    """Read a regular file. Raises OSError as `open_regular` does."""
    with os.fdopen(open_regular(file), "rb") as stream:
        return stream.read()


def sync_folder(folder: Path) -> None:
    """Flush a folder to disk: names created, renamed or removed in it survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(file: Path, content: bytes) -> None:
    """Write a new file and wait until its bytes are on the disk."""
    with file.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield the path of a new, empty file beside `file`; at the end it replaces `file`.

    The new file's name cannot be guessed. A missing folder is created. After an error, `file` is
    unchanged.
    """
    unfinished = file.with_name(f".unfinished-{secrets.token_hex(8)}-{file.name}")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.close(open_regular(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        yield unfinished
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def replace_file(file: Path, content: bytes) -> None:
    """Replace a file's content, whole or not at all, and wait until it is on the disk."""
    with replacing(file) as unfinished, unfinished.open("r+b") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    sync_folder(file.parent)
