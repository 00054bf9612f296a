"""The question asked before code that a run names is imported, as it may be somebody else's."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path


def add_trust(command: argparse.ArgumentParser) -> None:
    """Add --trust."""
    command.add_argument(
        "--trust",
        action="store_true",
        help="import and run the modules that a run names as its environment or network "
        "(module:function)",
    )


def check_trust(folders: Sequence[Path], *, trust: bool) -> None:
    """Ask on the terminal whether to import the code that runs name; import nothing before.

    `trust` allows it without a question. Raises RunError if the answer is no, or if there is no
    terminal to ask on.
    """
    from ..runs import RunError, open_run
    from ..runs.config import MAY_BE_OWN, SECTION_OF

    named: dict[tuple[str, str], Path] = {}
    for folder in folders:
        with suppress(RunError):  # the command itself reports what is wrong with the run
            fields = open_run(folder).config.by_section()
            for field in MAY_BE_OWN:
                place = fields[SECTION_OF[field]][field]
                if place and ":" in place:
                    named.setdefault((field, place), folder)
    for (field, place), folder in {} if trust else named.items():
        what = f"{folder}: its {field} is {place}: that imports {_origin(place)} and runs it"
        if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
            raise RunError(f"{what}; --trust allows it")
        print(f"{what}. Go on? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise RunError(f"{what}, which was not allowed")


def _origin(place: str) -> str:
    """Return a module's name and the file or folder it would come from, importing nothing."""
    module = place.partition(":")[0]
    found = PathFinder.find_spec(module.partition(".")[0], [*sys.path, str(Path.cwd())])
    if found is None:
        return module
    where = found.origin or next(iter(found.submodule_search_locations or ()), None)
    return f"{module} ({where})" if where else module
