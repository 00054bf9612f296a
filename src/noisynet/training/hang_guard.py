"""The end of a process that hangs in C code, where Python's signal handlers do not run."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress

PATIENCE_SECONDS = 30.0
"""How long a game may fail to answer, once an end was asked for, before the process ends."""

_listening = False


@contextmanager
def exit_if_hung(
    signals: Collection[int], hung: Callable[[float], Exception | None]
) -> Iterator[None]:
    """End the process if, after one of the signals, `hung(PATIENCE_SECONDS)` returns an error.

    A thread learns of signals from a pipe, into which Python's C code writes even where no handler
    can run (`signal.set_wakeup_fd`). It prints the error and ends the process at once: nothing can
    be saved, and what is on disk stays intact. C code that holds the GIL stops this thread too.
    Works in the main thread only, and does nothing if the pipe is taken, for instance by asyncio.
    """
    global _listening
    if (former := signal.set_wakeup_fd(-1)) != -1:
        signal.set_wakeup_fd(former)
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    over = threading.Event()

    def listen() -> None:
        while os.read(reading, 1)[0] not in signals and not over.is_set():
            pass
        while not over.wait(1.0):
            if (error := hung(PATIENCE_SECONDS)) is not None:
                said = "no signal reaches it, and the process ends; the last checkpoint stays"
                os.write(2, f"{error}: {said}\n".encode())
                os._exit(2)

    thread = threading.Thread(target=listen, daemon=True)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    _listening = True
    thread.start()
    try:
        yield
    finally:
        _listening = False
        signal.set_wakeup_fd(-1)
        over.set()
        with suppress(BlockingIOError):
            os.write(writing, b"\0")
        thread.join()
        os.close(reading)
        os.close(writing)


def _not_in_child() -> None:
    """Stop a forked child from writing its own signals into its parent's pipe."""
    if _listening:
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_not_in_child)
