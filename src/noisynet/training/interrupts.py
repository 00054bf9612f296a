"""Ctrl-C, a polite kill or a closed terminal: a request to end in good order."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

SAME_SECONDS = 3.0
"""How long after an interrupt another one is still the same; a busy process hears them late."""

INTERRUPTS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


@contextmanager
def on_interrupt(
    act: Callable[[], object], signals: Sequence[signal.Signals] = INTERRUPTS
) -> Iterator[None]:
    """Call `act` on each of the signals, in place of what it does otherwise.

    A second Ctrl-C raises KeyboardInterrupt. What follows within SAME_SECONDS is the first one
    still: what stands between the terminal and this process (`timeout`, `uv run`) may send each
    one twice. Outside the main thread nothing changes: signals are somebody else's there.
    """
    first: float | None = None

    def note(number: int, _frame: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        first = now if first is None else first
        if number == signal.SIGINT and now - first > SAME_SECONDS:
            raise KeyboardInterrupt
        act()

    try:
        former = {number: signal.signal(number, note) for number in signals}
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
