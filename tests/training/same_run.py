"""Runs that crash where a test wants it, and whether two runs are the same, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from noisynet.runs import Config, checkpoint, read_metrics
from noisynet.training import Event, GameFinished


class Crash(Exception):
    """End a run without any chance to save."""


class CrashAt:
    """Listen, and crash at the first game that ends from a step on."""

    def __init__(self, step: int) -> None:
        self.step = step

    def started(self, folder: Path, config: Config, step: int, notes: list[str]) -> None:
        self.notes = notes

    def on_event(self, event: Event, elapsed: float) -> None:
        if isinstance(event, GameFinished) and event.step >= self.step:
            raise Crash

    def closed(self) -> None:
        pass


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Read a run's metrics without the times."""
    return [
        {tag: value for tag, value in record.items() if not tag.startswith("time/")}
        for record in read_metrics(folder)
    ]


def assert_same_run(one: Path, other: Path) -> None:
    assert metrics(one) == metrics(other)
    first, second = (checkpoint.read_newest(run / "checkpoints") for run in (one, other))
    assert first is not None
    assert second is not None
    assert first.step == second.step
    assert first.arrays.keys() == second.arrays.keys()
    for name, array in first.arrays.items():
        assert np.array_equal(array, second.arrays[name]), name
    for key in ("agent", "loop"):
        assert first.state[key] == second.state[key]
