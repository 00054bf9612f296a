"""What can be wrong with a run on disk: each error is one line, fit to print as it is."""

from __future__ import annotations

import reprlib
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


_MOST_SHOWN = 80


class _Short(reprlib.Repr):
    """`repr` that does not write out what is cut away."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = _MOST_SHOWN
        self.maxlist = self.maxtuple = self.maxdict = 12


_short = _Short()


def shown(value: object) -> str:
    """Return a value as Python writes it, cut at 80 characters, fit to stand in a message."""
    text = _short.repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
