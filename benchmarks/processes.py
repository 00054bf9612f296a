"""Processes that end with the process that started them, even if that was killed.

`end_with_parent` is the initializer of a process pool, `run_module` runs one module.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

GRACE_SECONDS = 10
"""How long a run may take to end cleanly after SIGTERM."""


def end_with_parent() -> None:
    """Make a worker of a process pool end with the process that made the pool.

    By itself, an idle worker would wait for ever on a pipe of which it holds both ends.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "an initializer of a pool runs in its workers"
    started_by = os.getppid()

    def wait() -> None:
        # Either test alone may miss the parent's end: workers that are forked later keep the pipe
        # open by which `is_alive` sees it, and on Windows the parent's number does not change.
        while parent.is_alive() and os.getppid() == started_by:
            time.sleep(1)

    _end_after(wait)


def run_module(name: str, *arguments: str) -> str:
    """Run a module as `python -m` does, in a process that ends with this one.

    Returns what it prints. Raises subprocess.CalledProcessError if it fails.
    """
    command = [sys.executable, "-m", __name__, name, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None, "a pipe"
        printed = process.stdout.read()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, printed)
    return printed


def _end_after(wait: Callable[[], object]) -> None:
    """End this process when `wait` returns."""

    def end() -> None:
        wait()
        for _ in range(GRACE_SECONDS):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


if __name__ == "__main__":
    # The parent writes nothing: the read returns when it closes the pipe or ends.
    _end_after(lambda: os.read(sys.stdin.fileno(), 1))
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
