"""Runs with sampler actors, from their beginning or from where they stopped."""

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
    """Train a new run, and yield what happens; see `noisynet.training.session.train`.

    `address` is that of a Ray cluster; without one Ray runs on this machine, for as long as the
    run. `tell` hears in a few words what is measured before training begins. Raises ScaleError, one
    line, where Ray is missing or has too few CPUs.
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
    """Train a new run to its end."""
    return session.finish(train(config, path, listeners, address=address, tell=tell))


def resume(
    path: Path,
    listeners: Iterable[Listener] = (),
    *,
    address: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Outcome:
    """Go on with a run to its end, with some fields of its config changed.

    Samplers start new games, with noise of their own.
    """
    run = open_run(path)
    assembler = SamplersAssembler(run.config, address)
    return session.finish(session.train_on(run, assembler, listeners, changes=changes))
