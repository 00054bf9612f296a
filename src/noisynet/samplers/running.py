"""Functions that train or resume a run with sampler actors."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..runs.config import Config
from ..runs.opening import open_run
from ..training import Event, Listener, Outcome, session
from .assembler import SamplersAssembler


def train(
    config: Config,
    path: Path | Callable[[], Path],
    listeners: Iterable[Listener] = (),
    *,
    address: str | None = None,
    tell: Callable[[str], object] | None = None,
) -> Generator[Event, None, Outcome]:
    """Train a new run, and yield its events; see `noisynet.training.session.train`.

    `address` is that of a Ray cluster; without it, Ray runs on this machine for as long as the run.
    `tell` is called with a few words on what is measured before training begins. Raises ScaleError,
    with a message of one line, if Ray is missing or has too few CPUs.
    """
    return session.train(SamplersAssembler(config, address, tell), path, listeners)


def start(
    config: Config,
    path: Path | Callable[[], Path],
    listeners: Iterable[Listener] = (),
    *,
    address: str | None = None,
    tell: Callable[[str], object] | None = None,
) -> Outcome:
    """Train a new run to its end, and return the outcome."""
    return session.finish(train(config, path, listeners, address=address, tell=tell))


def resume(
    path: Path,
    listeners: Iterable[Listener] = (),
    *,
    address: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Outcome:
    """Continue a run to its end, with `changes` to fields of its config; return the outcome.

    Samplers start new games, with new noise.
    """
    run = open_run(path)
    assembler = SamplersAssembler(run.config, address)
    return session.finish(session.train_on(run, assembler, listeners, changes=changes))
