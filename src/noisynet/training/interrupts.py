"""Ctrl-C, a polite kill or a closed terminal: a request to end in good order."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import FrameType

from .unheard import end_if_unheard

SAME_SECONDS = 3.0
"""How long after an interrupt another one is still the same; a busy process hears them late."""

LOOK_SECONDS = 1.0
"""Time between two looks, once an end was asked for, at whether what runs has hung."""

_heard: float | None = None
"""When the last interrupt came that was not the same one still."""
_raised = False
"""Whether an interrupt of the whole program has raised KeyboardInterrupt."""

INTERRUPTS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


@contextmanager
def on_interrupt(
    act: Callable[[], object],
    signals: Sequence[signal.Signals] = INTERRUPTS,
    hung: Callable[[float | None], Exception | None] | None = None,
) -> Iterator[None]:
    """Call `act` on each of the signals, in place of what it does otherwise.

    A second Ctrl-C raises KeyboardInterrupt. What follows within SAME_SECONDS is the first one
    still: what stands between the terminal and this process (`timeout`, `uv run`) may send each
    one twice. From the first one on, what `hung(None)` returns is raised, wherever this thread is:
    an answer that it waits for may never come. (Where that is in C code, `end_if_unheard` ends the
    process.) Outside the main thread nothing changes: signals are somebody else's there.
    """
    first: float | None = None
    over = threading.Event()
    this_thread = threading.get_ident()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            signal.pthread_kill(this_thread, signals[-1])

    looks = threading.Thread(target=look, daemon=True)

    def note(number: int, _frame: FrameType | None) -> None:
        global _heard
        nonlocal first
        now = time.monotonic()
        if first is None:
            first = _heard = now
            if hung is not None:
                looks.start()
        if hung is not None and (error := hung(None)) is not None:
            raise error
        if number == signal.SIGINT and now - first > SAME_SECONDS:
            raise KeyboardInterrupt
        act()

    try:
        former = {number: signal.signal(number, note) for number in signals}
    except ValueError:  # not the main thread
        yield
        return
    try:
        # While something was imported that catches every exception; other signals than all are
        # heard by whoever cleans up after it.
        if _raised and signals is INTERRUPTS:
            act()
        with nullcontext() if hung is None else end_if_unheard(signals, hung):
            yield
    finally:
        over.set()
        if looks.ident is not None:
            looks.join()
        for number, handler in former.items():
            signal.signal(number, handler)


def interrupt_once() -> None:
    """Let each of the signals raise KeyboardInterrupt from now on, for a whole program.

    What follows within SAME_SECONDS, also of an interrupt that `on_interrupt` heard, does not: the
    end that was asked for is under way. A signal that is ignored stays so (`nohup`).
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        global _heard, _raised
        _raised = True
        now = time.monotonic()
        if _heard is None or now - _heard > SAME_SECONDS:
            _heard = now
            raise KeyboardInterrupt

    for number in INTERRUPTS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
