"""Functions that train or resume a run in this process.

`tell` is called with a few words on what is measured before training begins.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..runs.config import Config
from ..runs.opening import open_run
from ..runs.pretrained import check_resumable
from ..training import Event, Listener, Outcome, session
from .assembler import Assembler


def train(
    config: Config,
    path: Path | Callable[[], Path],
    listeners: Iterable[Listener] = (),
    *,
    tell: Callable[[str], object] | None = None,
) -> Generator[Event, None, Outcome]:
    """Train a new run, and yield its events; see `noisynet.training.session.train`."""
    return session.train(Assembler(config, tell), path, listeners)


def start(
    config: Config,
    path: Path | Callable[[], Path],
    listeners: Iterable[Listener] = (),
    *,
    tell: Callable[[str], object] | None = None,
) -> Outcome:
    """Train a new run to its end, and return the outcome."""
    return session.finish(train(config, path, listeners, tell=tell))


def resume(
    path: Path,
    listeners: Iterable[Listener] = (),
    *,
    changes: Mapping[str, Any] | None = None,
) -> Outcome:
    """Continue a run to its end, with `changes` to fields of its config; return the outcome."""
    check_resumable(path)
    run = open_run(path)
    assembler = Assembler(run.config)
    return session.finish(session.train_on(run, assembler, listeners, changes=changes))
