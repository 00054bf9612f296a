"""A run's figures in two forms: metrics.jsonl for programs, TensorBoard's event files for viewing.

metrics.jsonl holds one JSON object per line, each with `step` (agent steps so far). A checkpoint
stores the length that `commit` returns; a resumed run cuts the file there, so that it reads as if
the run had never stopped. Event files cannot be cut in this way: the new one states where it
starts, and TensorBoard drops what earlier ones hold from there on.
"""

from __future__ import annotations

import contextlib
import json
import math
import numbers
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy.typing as npt

from ..disk import open_regular, sync_folder
from .errors import RunError, writing
from .event_file import EventFile

FILE_NAME = "metrics.jsonl"

_LONGEST_LINE = 1 << 20
_LARGEST = sys.float_info.max


class MetricsWriter:
    """A writer of figures to a run's metrics.jsonl and TensorBoard events.

    A new run passes only the folder. A resumed run also passes `resume_at`, the checkpoint's step,
    and `committed_bytes`, what `commit` returned for that checkpoint (0 and 0 if there was none
    yet): all later lines are cut. If the file has fewer bytes, or is missing, its whole lines stay,
    and `lost` says how many bytes were lost: figures are no reason to lose a training. Raises
    RunError if a new run finds lines already there, or no line ends where the checkpoint was.
    """

    lost: int
    """Bytes that the checkpoint expects and the file does not have."""

    def __init__(
        self, folder: Path, *, resume_at: int | None = None, committed_bytes: int | None = None
    ) -> None:
        if (resume_at is None) != (committed_bytes is None):
            raise ValueError("resume_at and committed_bytes come together or not at all")
        self._file = folder / FILE_NAME
        with writing(self._file):
            self._lines = open_regular(self._file, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            try:
                self._length = self._cut(committed_bytes)
                self.lost = (committed_bytes or 0) - self._length
                self._events = EventFile(folder)
                sync_folder(folder)
                if resume_at is not None:
                    self._events.start_again_at(resume_at)
                    # TensorBoard also drops this step itself, of which some figures were committed.
                    for record in read_metrics(folder):
                        if record["step"] >= resume_at:
                            self._events.write(record["step"], _numbers_in(record))
            except BaseException:
                os.close(self._lines)
                raise

    def write(self, step: int, scalars: Mapping[str, float | int | str | None]) -> None:
        """Append one line: `step`, agent steps so far, and each figure by its tag.

        NaN and infinity become null in metrics.jsonl, because JSON does not have them; TensorBoard,
        which shows only numbers, gets them as they are. The line is in the file when this returns,
        so another process can read it; it is on disk after `commit`. Raises RunError if the disk is
        full, without leaving half a line.
        """
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise ValueError(f"step takes a whole number from 0 up, got {step!r}")
        if "step" in scalars:
            raise ValueError("scalars: the tag 'step' is the line's own")
        plain = {tag: _plain(tag, value) for tag, value in scalars.items()}
        record = {"step": step} | {tag: _finite(value) for tag, value in plain.items()}
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        with writing(self._file):
            self._append(line)
            self._events.write(step, _numbers_in(plain))

    def describe(self, step: int, text: str, fields: Mapping[str, bool | float | str]) -> None:
        """Show the config in TensorBoard, as text and as fields by which it compares runs."""
        with writing(self._file):
            self._events.describe(step, text, fields)

    def write_histograms(self, step: int, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Show histograms of arrays in TensorBoard."""
        with writing(self._file):
            self._events.write_histograms(step, values)

    def commit(self) -> int:
        """Flush everything to disk, and return the length of metrics.jsonl in bytes."""
        with writing(self._file):
            os.fsync(self._lines)
            self._events.sync()
        return self._length

    def close(self) -> None:
        """Close both files. A second call does nothing."""
        if self._lines >= 0:
            os.close(self._lines)
            self._lines = -1
            with writing(self._file):
                self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _cut(self, committed_bytes: int | None) -> int:
        """Cut the lines after the checkpoint, and return the length that remains."""
        found = os.fstat(self._lines).st_size
        if committed_bytes is None:
            if found:
                raise RunError(f"{self._file}: holds {found} bytes; a new run starts an empty one")
            return 0
        length = self._whole_lines(min(found, committed_bytes))
        if length < committed_bytes <= found:
            raise RunError(
                f"{self._file}: damaged: no line ends at byte {committed_bytes}, where the "
                "checkpoint expects one; move it away, and the run goes on without earlier figures"
            )
        os.ftruncate(self._lines, length)
        os.fsync(self._lines)
        return length

    def _whole_lines(self, end: int) -> int:
        """Return where the last line ends that is whole within the first `end` bytes."""
        while end:
            begin = max(end - _LONGEST_LINE, 0)
            newline = os.pread(self._lines, end - begin, begin).rfind(b"\n")
            if newline >= 0:
                return begin + newline + 1
            end = begin
        return 0

    def _append(self, line: bytes) -> None:
        try:
            written = 0
            while written < len(line):
                written += os.write(self._lines, line[written:])
        except OSError:
            os.ftruncate(self._lines, self._length)
            raise
        self._length += len(line)


class MetricsReader:
    """The lines of a metrics.jsonl, one in memory at a time; may be iterated again.

    A damaged line (after a kill, a full disk, a bad block) is left out; `damaged` counts those of
    the latest iteration.
    """

    damaged: int

    def __init__(self, file: Path) -> None:
        self._file = file
        self.damaged = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.damaged = 0
        try:
            with os.fdopen(open_regular(self._file), "rb") as stream:
                while line := stream.readline(_LONGEST_LINE):
                    # A block of zeros after a power failure is a "line" of any length.
                    rest = line
                    while len(rest) == _LONGEST_LINE and not rest.endswith(b"\n"):
                        rest = stream.readline(_LONGEST_LINE)
                    record = _parse(line)
                    if record is None:
                        self.damaged += 1
                    else:
                        yield record
        except OSError as error:
            raise RunError(f"{self._file}: cannot be read: {error.strerror}") from error


def newest_line(folder: Path) -> dict[str, Any] | None:
    """Return the last line of a run's metrics.jsonl; None if it is missing or damaged.

    Reads only the end of the file.
    """
    with contextlib.suppress(OSError), os.fdopen(open_regular(folder / FILE_NAME), "rb") as stream:
        stream.seek(max(stream.seek(0, os.SEEK_END) - _LONGEST_LINE, 0))
        lines = stream.read().rsplit(b"\n", 2)
        return _parse(lines[-2]) if len(lines) > 1 else None
    return None


def read_metrics(folder: Path) -> MetricsReader:
    """Read the metrics.jsonl of the run in `folder`, line by line."""
    return MetricsReader(folder / FILE_NAME)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or type(record.get("step")) is not int:
        return None
    # JSON does not bound numbers: 1e400 is read as infinity, and 400 digits do not fit a float.
    if any(type(value) in (int, float) and abs(value) > _LARGEST for value in record.values()):
        return None
    return record if 0 <= record["step"] < 2**63 else None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _plain(tag: str, value: object) -> float | int | str | None:
    """Return numpy's and Python's own numbers as Python's; anything else is a TypeError."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(
        f"scalars[{tag!r}]: takes a number, text or None, got {type(value).__name__} "
        "(a tensor: give its item())"
    )


def _finite(value: float | int | str | None) -> float | int | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers_in(record: Mapping[str, object]) -> dict[str, float]:
    return {
        tag: float(value)
        for tag, value in record.items()
        if tag != "step" and isinstance(value, int | float)
    }
