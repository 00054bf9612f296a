"""A ring in files: one per array, `frames.bin`, `action.bin`, `reward.bin` and `flags.bin`."""

import errno
import math
import os
import shutil
from pathlib import Path

import numpy as np

from noisynet.replay.ring import Ring, RingShape


class ReplayDamaged(ValueError):
    """The files of a replay do not hold what the state of its commit says they hold."""


def create_ring(shape: RingShape, folder: Path) -> Ring:
    """Make the files with all their blocks on disk, and map them.

    With the blocks reserved, a full disk is an error here and not a crash (SIGBUS) hours later.

    Raises:
        FileExistsError: the folder holds a ring already.
        OSError: the disk has too little room; no file is left behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes = _sizes(shape, folder)
    for file in sizes:
        if file.exists():
            raise FileExistsError(
                f"replay file {file} exists: reopen it from its commit, or delete it"
            )
    free = shutil.disk_usage(folder).free
    balance = f"replay in {folder}: needs {shape.nbytes:,} bytes of disk, {free:,} are free"
    if shape.nbytes > free:
        raise OSError(errno.ENOSPC, balance)
    try:
        for file, size in sizes.items():
            _allocate(file, size)
        _sync_folder(folder)
    except OSError as error:
        for file in sizes:
            file.unlink(missing_ok=True)
        raise OSError(error.errno, f"{balance} ({error.strerror})") from error
    return _map(shape, folder, head=0)


def open_ring(shape: RingShape, folder: Path, head: int, fingerprint: object) -> Ring:
    """Map the files of a ring whose newest vector step is `head` - 1.

    Raises ReplayDamaged if a file is missing or of another size, or if the window's checksum is
    not `fingerprint`.
    """
    for file, size in _sizes(shape, folder).items():
        if not file.is_file():
            raise ReplayDamaged(f"replay file {file} is missing")
        if (got := file.stat().st_size) != size:
            raise ReplayDamaged(f"replay file {file}: got {got} bytes, expected {size}")
    ring = _map(shape, folder, head)
    if ring.fingerprint() != fingerprint:
        raise ReplayDamaged(
            f"replay in {folder}: does not hold the data of the commit at vector step {head} "
            "(overwritten by later steps, of another run, or damaged)"
        )
    return ring


def _sizes(shape: RingShape, folder: Path) -> dict[Path, int]:
    """Return each file's size in bytes."""
    return {
        folder / f"{name}.bin": math.prod(size) * dtype.itemsize
        for name, size, dtype in shape.arrays()
    }


def _map(shape: RingShape, folder: Path, head: int) -> Ring:
    arrays = {
        name: np.memmap(folder / f"{name}.bin", dtype=dtype, mode="r+", shape=size)
        for name, size, dtype in shape.arrays()
    }
    return Ring(shape, dict(arrays), head)


def _allocate(file: Path, size: int) -> None:
    with file.open("xb") as stream:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), 0, size)
        else:  # macOS reserves blocks only for bytes that are written
            zeros = bytes(1 << 24)
            for start in range(0, size, len(zeros)):
                _ = stream.write(zeros[: size - start])
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the names of new files durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
