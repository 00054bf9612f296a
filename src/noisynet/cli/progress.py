"""The progress of a command that plays games: a changing line on a terminal, else plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_SECONDS = 10.0
"""The least time between two printed lines if there is no terminal."""


@contextmanager
def show_progress(what: str) -> Iterator[Callable[[str], object]]:
    """Show on standard error what is being done; yield a function that shows how far it has got."""
    if not sys.stderr.isatty():
        printed = time.monotonic()

        def line(said: str) -> None:
            nonlocal printed
            if time.monotonic() - printed >= LINE_SECONDS:
                printed = time.monotonic()
                print(said, file=sys.stderr, flush=True)

        yield line
        return

    from rich.console import Console

    with Console(stderr=True).status(f"{what} …") as status:
        yield lambda said: status.update(f"{what}: {said}")
