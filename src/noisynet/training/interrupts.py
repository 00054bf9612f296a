"""Signals that ask a program to end in good order: Ctrl-C, SIGTERM, a closed terminal."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any

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


class Interrupt:
    """The handler of the signals within one `on_interrupt`.

    Blocks may end in any order, since a program can train two runs by turns: a handler whose block
    is over, or left to the caller, passes signals on to the one before it.
    """

    def __init__(
        self, act: Callable[[], object], hung: Callable[[float | None], Exception | None] | None
    ) -> None:
        self._act = act
        self._hung = hung
        self._first: float | None = None
        self._over = threading.Event()
        self._is_left = False
        self._former: dict[int, Any] = {}
        self._looks: threading.Thread | None = None

    def install(self, signals: Sequence[signal.Signals]) -> None:
        """Take the place of the handlers; raise ValueError outside the main thread."""
        for number in signals:
            self._former[number] = signal.signal(number, self)

    def remove(self) -> None:
        """Put the former handlers back, except below one that was installed later."""
        self._over.set()
        if self._looks is not None:
            self._looks.join()
        for number in self._former:
            if signal.getsignal(number) is self:
                signal.signal(number, self._below(number))

    @contextmanager
    def left_to_caller(self) -> Iterator[None]:
        """Leave signals to the handler before this one, while a generator is suspended."""
        self._is_left = True
        try:
            yield
        finally:
            self._is_left = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        global _heard
        if self._over.is_set() or self._is_left:
            if self._over.is_set() or self._looks is None or number != self._look_signal:
                self._pass_on(number, frame)
            return
        now = time.monotonic()
        if self._first is None:
            self._first = _heard = now
            if self._hung is not None:
                self._look()
        if self._hung is not None and (error := self._hung(None)) is not None:
            raise error
        if number == signal.SIGINT and now - self._first > SAME_SECONDS:
            raise KeyboardInterrupt
        self._act()

    @property
    def _look_signal(self) -> int:
        return list(self._former)[-1]

    def _look(self) -> None:
        """Start to signal this thread, so that it checks for a hang again and again."""
        this_thread = threading.get_ident()

        def look() -> None:
            while not self._over.wait(LOOK_SECONDS):
                signal.pthread_kill(this_thread, self._look_signal)

        self._looks = threading.Thread(target=look, daemon=True)
        self._looks.start()

    def _below(self, number: int) -> Any:
        """Return the handler before this one whose block is not over."""
        handler = self._former[number]
        while isinstance(handler, Interrupt) and handler._over.is_set():
            handler = handler._former[number]
        return handler

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        handler = self._below(number)
        if callable(handler):
            handler(number, frame)
        elif handler is signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


@contextmanager
def on_interrupt(
    act: Callable[[], object],
    signals: Sequence[signal.Signals] = INTERRUPTS,
    hung: Callable[[float | None], Exception | None] | None = None,
) -> Iterator[Interrupt]:
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
    handler = Interrupt(act, hung)
    try:
        handler.install(heeded)
    except ValueError:  # not the main thread
        yield handler
        return
    try:
        # The KeyboardInterrupt may have been swallowed by an import that catches every exception.
        # Only a handler of all signals, as that of a run, makes up for it.
        if _raised and signals is INTERRUPTS:
            act()
        with nullcontext() if hung is None else exit_if_hung(heeded, hung):
            yield handler
    finally:
        handler.remove()


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
