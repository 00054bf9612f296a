"""Errors in a user's own code, described in one line: the error, and where it arose."""

import os
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from traceback import walk_tb

from .arguments import one_line

_THIS = str(Path(__file__).parents[1])
_PYTHON, _INSTALLED = (
    tuple({sysconfig.get_path(name) for name in names})
    for names in (("stdlib", "platstdlib"), ("purelib", "platlib"))
)


def raised(error: BaseException) -> str:
    """Return an error's type, first line and place: `KeyError: 'speed' (games.py:42)`."""
    place = _place(error)
    return one_line(error) if place is None else f"{one_line(error)} ({place})"


def _place(error: BaseException) -> str | None:
    """Return file and line of the innermost frame of the user's code, else of an installed package.

    None where only this package and Python were running.
    """
    frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    others = [(file, line) for file, line in frames if not _is_ours_or_python(file)]
    own = [(file, line) for file, line in others if not _is_in(file, _INSTALLED)]
    if not (found := own or others):
        return None
    file, line = found[-1]
    return f"{_short(file)}:{line}"


def _is_ours_or_python(file: str) -> bool:
    if file.startswith("<") or _is_in(file, [_THIS]):
        return True
    # Without a virtual environment, packages are installed inside Python's own folder.
    return _is_in(file, _PYTHON) and not _is_in(file, _INSTALLED)


def _is_in(file: str, folders: Iterable[str]) -> bool:
    return any(file.startswith(folder + os.sep) for folder in folders)


def _short(file: str) -> str:
    """Return a file's path, relative to the current folder if it is in there."""
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return file
