"""Ask before a run's environment is imported: a folder may come from somebody else."""

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
        help="import the modules that a run names as its environment or network (module:function), "
        "and run them",
    )


def check_trust(folders: Sequence[Path], *, trust: bool) -> None:
    """Ask on a terminal whether code that runs name may run; nothing is imported before.

    Raises RunError where it may not, or nobody can be asked.
    """
    from ..runs import RunError, open_run
    from ..runs.config import MAY_BE_OWN, SECTION_OF

    named: dict[tuple[str, str], Path] = {}
    for folder in folders:
        with suppress(RunError):  # the command says what is wrong with it
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
    """Return the file or folder that a module would come from, without importing anything."""
    module = place.partition(":")[0]
    found = PathFinder.find_spec(module.partition(".")[0], [*sys.path, str(Path.cwd())])
    if found is None:
        return module
    where = found.origin or next(iter(found.submodule_search_locations or ()), None)
    return f"{module} ({where})" if where else module
