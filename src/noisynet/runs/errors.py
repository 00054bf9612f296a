"""Errors of runs on disk: each is one line, which can be printed as it is."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_MOST_SHOWN = 80
_LONGEST_MESSAGE = 10_000


class RunError(Exception):
    """An error of a run, in one line: where it is, what was found, what was expected."""

    def __init__(self, message: str) -> None:
        super().__init__(cut(" ".join(message.splitlines()), _LONGEST_MESSAGE))


class Diverged(RunError):
    """A loss that became NaN or infinite; the message names where the state was saved."""


class NewerFormat(RunError):
    """A file that a newer noisynet wrote, in a format that this version does not know."""


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Raise RunError, which names `file` and the reason, in place of an OSError."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{file}: cannot be written: {error.strerror or error}") from error


class _Short(reprlib.Repr):
    """A `repr` that does not write out what would be cut away."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = _MOST_SHOWN
        self.maxlist = self.maxtuple = self.maxdict = 12

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write more than 4,300 digits in decimal.
        return super().repr_int(x, level) if x.bit_length() < 1000 else hex(x)


_short = _Short()


def shown(value: object) -> str:
    """Return a value's `repr`, cut at 80 characters, for use in a message."""
    return cut(_short.repr(value))


def cut(text: str, most: int = _MOST_SHOWN) -> str:
    """Return a text, cut if it is longer than `most` characters."""
    return text if len(text) <= most else f"{text[:most]}…"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that has text, or else the error's type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return the end of a message that asks for the most similar known name, if there is one."""
    near = nearest(name, known)
    return f"; did you mean {near[0]}?" if near else ""


def nearest(name: object, known: Iterable[str], count: int = 1, likeness: float = 0.6) -> list[str]:
    """Return the known names that are most similar to a name, the most similar first."""
    # The time grows with the square of the name's length, so the name is cut.
    word = name[:_MOST_SHOWN] if isinstance(name, str) else shown(name)
    return difflib.get_close_matches(word, list(known), count, likeness)
