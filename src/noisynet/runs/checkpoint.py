"""A checkpoint is a folder that appears whole or not at all.

    checkpoints/step_000012000/arrays.safetensors    name → array
                               state.json            format, step, checksums and everything else
                none_yet                             until the first one has been written

It is written under a temporary name, flushed to disk, and renamed; only then is the previous one
removed. So the newest folder is complete at every moment, whatever kills the process. What a kill
leaves behind is ignored, and removed by the next write. Reading executes no code.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from ..disk import read_file, sync_folder, write_file
from .errors import NewerFormat, RunError, first_line, shown
from .plain_json import decode, encode, to_json
from .saved_state import Document, problem_of

FORMAT = 1
"""The format that this version writes, and the newest that it reads."""

NONE_YET = "none_yet"
"""The file that tells a run without a checkpoint from one whose checkpoints were removed."""

_LISTINGS = 10
_ARRAYS = "arrays.safetensors"
_STATE = "state.json"
_TEMPORARY = "tmp_"
_STEP_NAME = re.compile(r"step_(\d{9,})(\.old)?")

# The types that both safetensors and numpy have.
_SIGNED = ("int8", "int16", "int32", "int64")
_UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
_KINDS = ("bool", *_SIGNED, *_UNSIGNED, "float16", "float32", "float64", "complex64")

# What restoring raises if the values do not belong to this config.
_MISFITS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class DamagedCheckpoint(RunError):
    """A checkpoint that differs from what was written: incomplete, shortened or altered."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The content of a checkpoint: step (agent steps so far), arrays by name, and plain state."""

    step: int
    arrays: dict[str, NDArray[Any]]
    state: dict[str, Any]


def begin(folder: Path) -> None:
    """Make a run's checkpoints/, in which there is none yet. Raises OSError if that fails."""
    folder.mkdir(exist_ok=True)
    (folder / NONE_YET).touch()
    sync_folder(folder)


def write(
    folder: Path, step: int, arrays: Mapping[str, NDArray[Any]], state: Mapping[str, object]
) -> Path:
    """Write a checkpoint into `folder` (a run's checkpoints/), then remove the one before it.

    `arrays` holds numpy arrays of the kinds that safetensors and numpy share (no bfloat16, no
    complex128, no text, no objects). `state` is nested dicts with text keys and lists of int (at
    most 2000 bits), float, str, bool and None; it is read back equal, NaN and infinities included.
    Anything else raises a TypeError or ValueError that names the place. Raises RunError if the disk
    is full or cannot be written; the previous checkpoint is then untouched.
    """
    _check_step(step)
    path = _write_whole(folder, f"step_{step:09d}", step, arrays, state)
    (folder / NONE_YET).unlink(missing_ok=True)
    for _, _, older in _steps(folder):
        if older != path:
            _remove(older)
    return path


def write_inspection(
    folder: Path, step: int, arrays: Mapping[str, NDArray[Any]], state: Mapping[str, object]
) -> Path:
    """Write a diverged state for inspection, as `nan_000012345`, beside the last good checkpoint.

    It has the format of a checkpoint, and `read` reads it. But `newest` never returns it, so no run
    resumes from it, and `write` never removes it.
    """
    _check_step(step)
    return _write_whole(folder, f"nan_{step:09d}", step, arrays, state)


def newest(folder: Path) -> Path | None:
    """Return the newest checkpoint in `folder`, or None if there is none yet."""
    # Listing is not atomic: during a write it may miss both the new one and the one just removed.
    for _ in range(_LISTINGS):
        steps = _steps(folder)
        if steps:
            return steps[-1][2]
    return None


def newest_step(folder: Path) -> int | None:
    """Return the step of the newest checkpoint in `folder`, by its name, or None."""
    path = newest(folder)
    match = None if path is None else _STEP_NAME.fullmatch(path.name)
    return None if match is None else int(match[1])


def read(path: Path) -> Checkpoint:
    """Read a checkpoint, comparing every byte with the checksums it was written with.

    Raises DamagedCheckpoint if anything differs or is missing, NewerFormat if a newer noisynet
    wrote it, and RunError if there is no checkpoint at `path`.
    """
    if not path.is_dir():
        raise RunError(f"{path}: no such checkpoint")
    document = _read_document(path)
    content = _read_bytes(path / _ARRAYS)
    wanted = document["arrays"]
    got = {"size": len(content), "crc32": zlib.crc32(content)}
    if got["size"] != wanted["size"]:
        raise DamagedCheckpoint(
            f"{path / _ARRAYS}: damaged: got {got['size']} bytes, expected {wanted['size']}"
        )
    if got != wanted:
        raise DamagedCheckpoint(
            f"{path / _ARRAYS}: damaged: got checksum {got['crc32']}, expected {wanted['crc32']}"
        )
    try:
        # Sorted by name, because safetensors returns them in a different order each time.
        arrays = dict(sorted(safetensors.numpy.load(content).items()))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DamagedCheckpoint(f"{path / _ARRAYS}: damaged: {error}") from error
    return Checkpoint(step=document["step"], arrays=arrays, state=document["state"])


def read_newest(folder: Path) -> Checkpoint | None:
    """Read the newest checkpoint while another process may be replacing it; None if there is none.

    For reading a run during training: the writer may replace the newest checkpoint after it has
    been found and before it has been read. Raises as `read` does if the same one fails twice in
    succession.
    """
    failed: Path | None = None
    while (path := newest(folder)) is not None:
        try:
            return read(path)
        except RunError:
            if path == failed:
                raise
            failed = path
    return None


@contextmanager
def fits_config(run: Path) -> Iterator[None]:
    """Raise RunError in place of the errors of restoring a checkpoint that does not fit."""
    try:
        yield
    except KeyError as error:
        raise RunError(
            f"{run}: its checkpoint does not fit its config: it lacks {error}"
        ) from error
    except _MISFITS as error:
        raise RunError(
            f"{run}: its checkpoint does not fit its config: {first_line(error)}"
        ) from error


def _check_step(step: int) -> None:
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise ValueError(f"step takes a whole number from 0 up, got {step!r}")


def _steps(folder: Path) -> list[tuple[int, bool, Path]]:
    """Return (step, whether it is in its final place, path) of the checkpoints, newest last."""
    found: list[tuple[int, bool, Path]] = []
    if folder.is_dir():
        for path in folder.iterdir():
            match = _STEP_NAME.fullmatch(path.name)
            # A folder with neither file was not written by this module.
            if match is not None and any((path / name).exists() for name in (_ARRAYS, _STATE)):
                found.append((int(match[1]), match[2] is None, path))
    return sorted(found)


def _write_whole(
    folder: Path,
    name: str,
    step: int,
    arrays: Mapping[str, NDArray[Any]],
    state: Mapping[str, object],
) -> Path:
    content = _array_bytes(arrays)
    document = {
        "format": FORMAT,
        "step": step,
        "arrays": {"size": len(content), "crc32": zlib.crc32(content)},
        "state": encode(dict(state), "state"),
    }
    document["crc32"] = _document_checksum(document)

    path = folder / name
    temporary = folder / f"{_TEMPORARY}{name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f"{_TEMPORARY}*"):
            _delete(leftover)
        temporary.mkdir()
        write_file(temporary / _ARRAYS, content)
        write_file(temporary / _STATE, (to_json(document) + "\n").encode())
        sync_folder(temporary)
        if path.exists():
            # The same step again. A folder cannot be renamed over a full one, so the old one gets a
            # name that `newest` still accepts while there is none in its place.
            aside = folder / f"{name}.old"
            if aside.exists():
                _remove(aside)
            path.rename(aside)
            temporary.rename(path)
            sync_folder(folder)
            _remove(aside)
        else:
            temporary.rename(path)
            sync_folder(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        last = newest(folder)
        kept = "there is none before it" if last is None else f"{last.name} is kept"
        raise RunError(f"{path}: cannot be written: {error.strerror}; {kept}") from error
    return path


def _remove(path: Path) -> None:
    # Renamed first: a kill during the removal must not leave half a checkpoint under a valid name.
    # The next write removes what cannot be removed now.
    doomed = path.with_name(f"{_TEMPORARY}removed_{path.name}")
    try:
        path.rename(doomed)
    except OSError:
        return
    with contextlib.suppress(OSError):
        _delete(doomed)


def _delete(path: Path) -> None:
    """Remove a folder with its content, or a link or file in its place."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)


def _array_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    whole: dict[str, NDArray[Any]] = {}
    for name, array in arrays.items():
        if not isinstance(name, str) or name == "__metadata__":
            raise ValueError(f"arrays: {name!r} is not a name for an array")
        if not isinstance(array, np.ndarray):
            raise TypeError(f"arrays[{name!r}]: takes a numpy array, got {type(array).__name__}")
        if array.dtype.name not in _KINDS:
            raise TypeError(f"arrays[{name!r}]: takes {', '.join(_KINDS)}; got {array.dtype}")
        # safetensors writes the memory as it is: a transposed view would be read back scrambled.
        # (And np.ascontiguousarray would turn a scalar array into a vector.)
        whole[name] = np.asarray(array, order="C")
    return safetensors.numpy.save(whole)


def _read_bytes(file: Path) -> bytes:
    try:
        return read_file(file)
    except FileNotFoundError as error:
        raise DamagedCheckpoint(f"{file}: missing: the checkpoint is not whole") from error
    except OSError as error:
        raise DamagedCheckpoint(f"{file}: cannot be read: {error.strerror}") from error


def _read_document(path: Path) -> dict[str, Any]:
    file = path / _STATE
    try:
        document = json.loads(_read_bytes(file))
    except (ValueError, RecursionError) as error:
        raise DamagedCheckpoint(f"{file}: damaged: not JSON: {error}") from error
    found = document.get("format") if isinstance(document, dict) else None
    if type(found) is not int or found < 1:
        raise DamagedCheckpoint(f"{file}: damaged: got format {shown(found)}, expected {FORMAT}")
    if found > FORMAT:
        raise NewerFormat(
            f"{file}: format {shown(found)} comes from a newer noisynet; this one reads up to "
            f"{FORMAT}"
        )
    wanted = document.pop("crc32", None)
    try:
        got = _document_checksum(document)
        document["state"] = decode(document.get("state"))
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedCheckpoint(f"{file}: damaged: {error}") from error
    if got != wanted:
        raise DamagedCheckpoint(f"{file}: damaged: got checksum {got}, expected {shown(wanted)}")
    if (problem := problem_of(Document, document)) is not None:
        raise DamagedCheckpoint(f"{file}: damaged: {problem}")
    return document


def _document_checksum(document: dict[str, Any]) -> int:
    return zlib.crc32(to_json(document).encode())
