"""A signal that comes while C code runs: Python hears it when that returns, which may be never."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress

UNHEARD_SECONDS = 30.0
"""How long a game may not answer, once an end was asked for, before the process ends."""

_listening = False


@contextmanager
def end_if_unheard(
    signals: Collection[int], hung: Callable[[float], Exception | None]
) -> Iterator[None]:
    """End the process where one of the signals comes and `hung(UNHEARD_SECONDS)` returns an error.

    A thread hears of signals by what C writes into a pipe, which needs no handler of Python's. It
    says the error and leaves at once: nothing can be saved, and what is on the disk stays good.
    C code that keeps the interpreter's lock stops this thread too. In the main thread only, and
    where nobody else hears signals in this way (asyncio does).
    """
    global _listening
    if (former := signal.set_wakeup_fd(-1)) != -1:
        signal.set_wakeup_fd(former)
        yield
        return
    hear, tell = os.pipe()
    os.set_blocking(tell, False)
    over = threading.Event()

    def listen() -> None:
        while os.read(hear, 1)[0] not in signals and not over.is_set():
            pass
        while not over.wait(1.0):
            if (error := hung(UNHEARD_SECONDS)) is not None:
                said = "no signal reaches it, and the process ends; the last checkpoint stays"
                os.write(2, f"{error}: {said}\n".encode())
                os._exit(2)

    thread = threading.Thread(target=listen, daemon=True)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    _listening = True
    thread.start()
    try:
        yield
    finally:
        _listening = False
        signal.set_wakeup_fd(-1)
        over.set()
        with suppress(BlockingIOError):
            os.write(tell, b"\0")
        thread.join()
        os.close(hear)
        os.close(tell)


def _not_in_child() -> None:
    """Keep what a forked child hears from being taken for its parent's."""
    if _listening:
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_not_in_child)
