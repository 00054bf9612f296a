"""Options that several commands share, and functions that read their values."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..training.tracking import Tracker

_LARGEST = 2_000_000_000
_MOST_DRAWS = 1_000


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    return _whole(text, 1)


def not_negative(text: str) -> int:
    """Read a whole number of at least 0."""
    return _whole(text, 0)


def as_path(text: str) -> Path:
    """Read a path; expand `~` to a home folder, also in --out=~/run, where no shell does."""
    if not text:  # as of a variable of a script that is not set
        raise argparse.ArgumentTypeError("got '', expected a path")
    try:
        return Path(text).expanduser()
    except RuntimeError:  # the home folder of an unknown user
        return Path(text)


def _whole(text: str, least: int) -> int:
    """Read a whole number as the config's fields are read: 1e6 is one, too."""
    from ..runs.config.accepted import number

    value = number(text)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or not least <= value < _LARGEST:
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
    from ..runs.errors import did_you_mean

    raise argparse.ArgumentTypeError(
        f"got {text!r}, expected off, on or mean:K, K being a number of draws from 2 to "
        f"{_MOST_DRAWS:,}{did_you_mean(text, ('off', 'on'))}"
    )


def one_of(*names: str) -> Callable[[str], str]:
    """Return a function that reads one of several words."""

    def read(text: str) -> str:
        from ..runs.config.accepted import any_of
        from ..runs.errors import did_you_mean

        if text in names:
            return text
        meant = did_you_mean(text, names)
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {any_of(names)}{meant}")

    return read


def add_agent(command: argparse.ArgumentParser) -> None:
    """Add RUN and --pretrained, of which one names the agent that plays."""
    from ..runs.pretrained import names

    command.add_argument("folder", type=as_path, nargs="?", metavar="RUN", help="the run's folder")
    command.add_argument(
        "--pretrained",
        type=one_of(*names()),
        metavar="NAME",
        help=f"in place of RUN, a pretrained agent: {', '.join(names())}",
    )


def folder_of(parsed: argparse.Namespace) -> Path:
    """Return the agent's folder; raises RunError unless one of RUN and --pretrained is given."""
    from ..runs.errors import RunError
    from ..runs.pretrained import pretrained

    if parsed.pretrained is None:
        if parsed.folder is None:
            raise RunError("RUN: got nothing, expected a run's folder, or --pretrained with a name")
        return parsed.folder
    if parsed.folder is not None:
        raise RunError(
            f"--pretrained: got {parsed.pretrained} beside {parsed.folder}, expected one of the two"
        )
    return pretrained(parsed.pretrained)


def add_noise(command: argparse.ArgumentParser) -> None:
    """Add --noise: how the agent acts."""
    command.add_argument(
        "--noise",
        type=noise_draws,
        default=0,
        metavar="off|on|mean:K",
        help="off: the mean weights; on: new noise at every step; mean:K: by the mean of Q over K "
        "new draws at every step (default: off)",
    )


def add_json(command: argparse.ArgumentParser) -> None:
    """Add --json."""
    command.add_argument(
        "--json", action="store_true", help="print one JSON object, and nothing else"
    )


def add_ray(command: argparse.ArgumentParser) -> None:
    """Add --ray: the address of the Ray cluster that a run's samplers are on."""
    command.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="HOST:PORT of the Ray cluster that runs the sampler actors of --actors (default: Ray "
        "on this machine)",
    )


def add_track(command: argparse.ArgumentParser) -> None:
    """Add --track."""
    command.add_argument(
        "--track",
        type=one_of("wandb", "mlflow"),
        metavar="wandb|mlflow",
        help="send config and figures to Weights & Biases or MLflow as well",
    )


def trackers(parsed: argparse.Namespace) -> list[Tracker]:
    """Return the tracker that `--track` names, if any; raises RunError without its package."""
    if parsed.track is None:
        return []
    from ..training.tracking import make_tracker

    return [make_tracker(parsed.track)]


def check_ray(address: str | None) -> None:
    """Raise RunError for an address of Ray, which a run without sampler actors does not use."""
    from ..runs.errors import RunError

    if address is not None:
        raise RunError(f"--ray: got {address!r}, expected none without --actors")


def add_steps(command: argparse.ArgumentParser) -> None:
    """Add --steps: the most agent steps that a game of a command may take."""
    command.add_argument(
        "--steps",
        type=positive,
        default=None,
        metavar="N",
        help="agent steps after which a game is ended (default: 50000)",
    )


def say(text: str) -> None:
    """Print an important line, on standard error if standard output is closed or full."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            print(text, file=stream, flush=True)
            return


@contextmanager
def stdout_for_json(parsed: argparse.Namespace, *, own_process: bool) -> Iterator[None]:
    """With --json, send whatever else is printed to standard error, such as a game's output.

    With `own_process`, standard output stays redirected: libraries may print as they end.
    """
    if not getattr(parsed, "json", False):
        yield
        return
    parsed.stdout = sys.stdout
    if own_process and sys.stdout is sys.__stdout__:
        # Libraries in C and a game's processes bypass sys.stdout: redirect the descriptor as well.
        own = os.dup(1)
        os.dup2(2, 1)
        parsed.stdout = os.fdopen(own, "w")
    with redirect_stdout(sys.stderr):
        yield
    parsed.stdout.flush()


def print_json(parsed: argparse.Namespace, value: Any) -> None:
    """Print the object of --json on the standard output that `stdout_for_json` has kept."""
    print(json.dumps(value), file=parsed.stdout)
