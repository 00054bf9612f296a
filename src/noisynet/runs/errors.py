"""What can be wrong with a run on disk: each error is one line, fit to print as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class RunError(Exception):
    """What is wrong with a run, in one line: what it is, what was found, what was expected."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))


class NewerFormat(RunError):
    """A file that a newer noisynet wrote, so that reading on would be guessing."""


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Raise RunError, which names `file` and the reason, in place of an OSError."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{file}: cannot be written: {error.strerror or error}") from error
