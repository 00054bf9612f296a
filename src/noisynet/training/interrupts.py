"""Signals that ask a program to end in good order: Ctrl-C, SIGTERM, a closed terminal."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import FrameType

from .hang_guard import exit_if_hung

SAME_SECONDS = 3.0
"""Seconds within which further signals count as one interrupt; a busy process hears them late."""

LOOK_SECONDS = 1.0
"""Seconds between two checks for a hang, once an interrupt has been heard."""

_heard: float | None = None
"""Time of the last interrupt, not counting its repeats."""
_raised = False
"""Whether a handler of `interrupt_once` has raised KeyboardInterrupt."""

INTERRUPTS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


@contextmanager
def on_interrupt(
    act: Callable[[], object],
    signals: Sequence[signal.Signals] = INTERRUPTS,
    hung: Callable[[float | None], Exception | None] | None = None,
) -> Iterator[None]:
    """Call `act` when one of the signals arrives, in place of its usual handler.

    A signal that is ignored (`nohup`, a job in the background of a script) stays ignored.
    A second Ctrl-C raises KeyboardInterrupt, unless it follows within SAME_SECONDS of the first
    signal: programs between the terminal and this process (`timeout`, `uv run`) may send a signal
    twice. After the first signal, `hung(None)` is called every LOOK_SECONDS, and an error that it
    returns is raised in this thread, which may be waiting for an answer that never comes. (While
    the thread is in C code no handler runs; `exit_if_hung` ends the process then.) Outside the
    main thread, which alone can set handlers, nothing changes.
    """
    heeded = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    first: float | None = None
    over = threading.Event()
    this_thread = threading.get_ident()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            signal.pthread_kill(this_thread, heeded[-1])

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
        former = {number: signal.signal(number, note) for number in heeded}
    except ValueError:  # not the main thread
        yield
        return
    try:
        # The KeyboardInterrupt may have been swallowed by an import that catches every exception.
        # Only a handler of all signals, as that of a run, makes up for it.
        if _raised and signals is INTERRUPTS:
            act()
        with nullcontext() if hung is None else exit_if_hung(heeded, hung):
            yield
    finally:
        over.set()
        if looks.ident is not None:
            looks.join()
        for number, handler in former.items():
            signal.signal(number, handler)


def interrupt_once() -> None:
    """Make each of the signals raise KeyboardInterrupt from now on, in the whole program.

    A signal within SAME_SECONDS of the last interrupt, which `on_interrupt` may have heard, raises
    nothing: the program is ending already. A signal that is ignored (`nohup`) stays ignored.
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
