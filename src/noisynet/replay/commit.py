"""A replay on disk: the ring's files, and the state of a commit, at which it can be reopened.

The ring has one file per array: `frames.bin`, `action.bin`, `reward.bin` and `flags.bin`.
Any priority can change at any time, so each commit copies them all, in turn to `priorities_0.bin`
and `priorities_1.bin`: while one is written, the other holds those of the previous commit.
"""

import errno
import math
import os
import shutil
import stat
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ..disk import open_regular, read_file, sync_folder
from .arguments import whole
from .priorities import PrioritisedSampler
from .ring import Ring, RingShape

_FORMAT = 1
"""Version of the files and of the state of a commit."""


class ReplayDamaged(ValueError):
    """The error of a replay whose files do not match the state of its commit."""


def create_ring(shape: RingShape, folder: Path, *, priorities: bool = False) -> Ring:
    """Create the files of a ring, with all their blocks reserved on disk, and map them.

    So a full disk is an error here, and not a crash (SIGBUS) hours later.

    Raises:
        FileExistsError: the folder holds a ring already.
        OSError: the disk has too little room; no file is left behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes = _sizes(shape, folder, priorities)
    needed = sum(sizes.values())
    for file in sizes:
        if file.exists():
            raise FileExistsError(
                f"replay file {file} exists: reopen it from its commit, or delete it"
            )
    free = shutil.disk_usage(folder).free
    balance = f"replay in {folder}: needs {needed:,} bytes of disk, {free:,} are free"
    if needed > free:
        raise OSError(errno.ENOSPC, balance)
    try:
        for file, size in sizes.items():
            _allocate(file, size)
        sync_folder(folder)
    except OSError as error:
        for file in sizes:
            file.unlink(missing_ok=True)
        raise OSError(error.errno, f"{balance} ({error.strerror})") from error
    return _map(shape, folder, head=0)


def open_ring(
    shape: RingShape, folder: Path, head: int, fingerprint: object, *, priorities: bool = False
) -> Ring:
    """Map the files of a ring whose newest vector step is `head` - 1.

    Raises ReplayDamaged if a file is missing or of another size, or if the window's checksum is
    not `fingerprint`.
    """
    for file, size in _sizes(shape, folder, priorities).items():
        try:
            found = file.lstat()
        except FileNotFoundError:
            raise ReplayDamaged(f"replay file {file} is missing") from None
        if not stat.S_ISREG(found.st_mode):
            raise ReplayDamaged(f"replay file {file}: it is no regular file")
        if found.st_size != size:
            raise ReplayDamaged(f"replay file {file}: got {found.st_size} bytes, expected {size}")
    ring = _map(shape, folder, head)
    if ring.fingerprint() != fingerprint:
        raise ReplayDamaged(
            f"replay in {folder}: does not hold the data of the commit at vector step {head} "
            "(overwritten by later steps, of another run, or damaged)"
        )
    return ring


class PrioritySnapshots:
    """The two files to which commits write the priorities in turn.

    `newest` is the number of the file that the last commit wrote.
    """

    def __init__(self, folder: Path, newest: int = 1) -> None:
        self._folder = folder
        self._newest = newest

    def write(self, priorities: npt.NDArray[np.float64]) -> dict[str, object]:
        """Write priorities to disk; return the number and checksum of the file. Raises OSError."""
        number = 1 - self._newest
        content = priorities.astype("<f8", copy=False).data
        descriptor = open_regular(_snapshot(self._folder, number), os.O_RDWR)
        with os.fdopen(descriptor, "r+b") as stream:
            _ = stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        self._newest = number
        return {"file": number, "checksum": zlib.crc32(content)}

    def read(self, checksum: object) -> npt.NDArray[np.float64]:
        """Return the newest priorities. Raises ReplayDamaged if the checksum does not match."""
        file = _snapshot(self._folder, self._newest)
        content = read_file(file)
        if zlib.crc32(content) != checksum:
            raise ReplayDamaged(f"replay file {file}: does not hold the priorities of the commit")
        return np.frombuffer(content, "<f8")


def ring_state(ring: Ring, generator: np.random.Generator) -> dict[str, object]:
    """Return the state of a commit: of a ring whose files are on disk, and of the generator."""
    shape = ring.shape
    return {
        "format": _FORMAT,
        "capacity": shape.capacity,
        "environments": shape.environments,
        "frame_shape": list(shape.frame_shape),
        "frame_dtype": shape.frame_dtype.str,
        "stack": shape.stack,
        "slack": shape.slack,
        "head": ring.head,
        "generator": generator.bit_generator.state,
        "fingerprint": ring.fingerprint(),
    }


def read_commit(
    folder: Path, state: Mapping[str, object]
) -> tuple[Ring, np.random.Generator, PrioritisedSampler | None, PrioritySnapshots]:
    """Return the parts of a replay as of the commit that gave `state`. Raises ReplayDamaged."""
    if state.get("format") != _FORMAT:
        got = state.get("format")
        raise ReplayDamaged(f"replay state: got format {got!r}, expected {_FORMAT}")
    try:
        shape = RingShape(
            capacity=cast(int, state["capacity"]),
            environments=cast(int, state["environments"]),
            frame_shape=tuple(cast(list[int], state["frame_shape"])),
            frame_dtype=np.dtype(cast(str, state["frame_dtype"])),
            stack=cast(int, state["stack"]),
            slack=whole("slack", state["slack"], 1),
        )
        head = whole("head", state["head"], 0)
        bits = np.random.PCG64()
        bits.state = cast(Any, state["generator"])
        prioritised = "priorities" in state
        ring = open_ring(shape, folder, head, state["fingerprint"], priorities=prioritised)
        sampler, snapshots = None, PrioritySnapshots(folder)
        if prioritised:
            part = cast(Mapping[str, object], state["priorities"])
            snapshots = PrioritySnapshots(folder, whole("file", part["file"], 0, 1))
            leaves = snapshots.read(part["checksum"])
            sampler = PrioritisedSampler.restore(ring, part, leaves)
    except ReplayDamaged:
        raise
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise ReplayDamaged(f"replay state: {type(error).__name__}: {error}") from error
    return ring, np.random.Generator(bits), sampler, snapshots


def _snapshot(folder: Path, number: int) -> Path:
    return folder / f"priorities_{number}.bin"


def _sizes(shape: RingShape, folder: Path, priorities: bool) -> dict[Path, int]:
    """Return each file's size in bytes."""
    sizes = {
        folder / f"{name}.bin": math.prod(size) * dtype.itemsize
        for name, size, dtype in shape.arrays()
    }
    if priorities:
        sizes |= {_snapshot(folder, number): shape.capacity * 8 for number in (0, 1)}
    return sizes


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
