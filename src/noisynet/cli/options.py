"""Options that several commands have, and what they take."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

_LARGEST = 2_000_000_000
_MOST_DRAWS = 1_000


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    return _whole(text, 1)


def as_path(text: str) -> Path:
    """Read a path; `~` is a home folder, also in --out=~/run, where no shell replaces it."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # of a user that there is not
        return Path(text)


def seed(text: str) -> int:
    """Read a whole number of at least 0."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value < _LARGEST:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected a whole number from {least} to {_LARGEST - 1}"
        )
    return value


def noise_draws(text: str) -> int:
    """Read --noise as a number of draws: off is 0, on is 1, mean:K is K."""
    if text in ("off", "on"):
        return int(text == "on")
    kind, _, count = text.partition(":")
    if kind == "mean" and count.isdecimal() and 2 <= int(count) <= _MOST_DRAWS:
        return int(count)
    raise argparse.ArgumentTypeError(
        f"got {text!r}, expected off, on or mean:K, K being a number of draws from 2 to "
        f"{_MOST_DRAWS:,}"
    )


def one_of(*names: str) -> Callable[[str], str]:
    """Return what reads one of several words."""

    def read(text: str) -> str:
        from ..runs.accepted import any_of
        from ..runs.errors import nearest

        if text in names:
            return text
        near = nearest(text, names)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {any_of(names)}{meant}")

    return read


def add_json(command: argparse.ArgumentParser) -> None:
    """Add --json."""
    command.add_argument(
        "--json", action="store_true", help="print one JSON object, and nothing else"
    )


def add_ray(command: argparse.ArgumentParser) -> None:
    """Add the cluster that a run's samplers may be on."""
    command.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="HOST:PORT of the Ray cluster that sampler actors are to live on; without it Ray runs "
        "on this machine (with --actors only)",
    )


def check_ray(address: str | None) -> None:
    """Raise RunError for an address that nothing would use."""
    from ..runs.errors import RunError

    if address is not None:
        raise RunError(f"--ray: got {address!r}, expected none without --actors")


def add_steps(command: argparse.ArgumentParser) -> None:
    """Add the limit on a game that a command plays."""
    command.add_argument(
        "--steps",
        type=positive,
        default=None,
        metavar="N",
        help="agent steps that a game may take before it is left unfinished (default: 50000)",
    )


def say(text: str) -> None:
    """Print what must be known: where standard output is closed or full, on standard error."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            print(text, file=stream, flush=True)
            return


@contextmanager
def stdout_for_json(parsed: argparse.Namespace) -> Iterator[None]:
    """With --json, send what others print meanwhile to standard error: games may print."""
    if not getattr(parsed, "json", False):
        yield
        return
    parsed.stdout = sys.stdout
    if sys.stdout is sys.__stdout__:
        # What is not Python prints too: libraries, and processes that a game starts.
        own = os.dup(1)
        os.dup2(2, 1)
        parsed.stdout = os.fdopen(own, "w")
    with redirect_stdout(sys.stderr):
        yield
    parsed.stdout.flush()


def print_json(parsed: argparse.Namespace, value: Any) -> None:
    """Print the one object of --json."""
    print(json.dumps(value), file=parsed.stdout)
