"""The program: options in, one line for what is wrong, and the exit status."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from .options import stdout_for_json

_EXIT_BAD_INPUT = 2
_EXIT_DIVERGED = _EXIT_UNWRITTEN = 1
_EXIT_INTERRUPTED = 130

_NEEDED = (
    "pydantic", "yaml", "numpy", "gymnasium", "safetensors", "rich", "scipy", "tensorboard",
)  # fmt: skip


_NEGATIVE = re.compile(r"-(\.?\d|\.?inf$|\.?nan$)", re.IGNORECASE)


class _Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # argparse's own takes -1e38, -1_000 and -inf for options.
        self._negative_number_matcher = _NEGATIVE

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        """Refuse what is unknown here, where this command's own options are known."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._meant(unknown)}")
        return parsed, unknown

    def _meant(self, unknown: Sequence[str]) -> str:
        """Return, for the end of a sentence, the option nearest to the first unknown one."""
        from ..runs.errors import nearest

        names = [one.partition("=")[0] for one in unknown if one.startswith("--")]
        near = nearest(names[0], self._option_string_actions) if names else []
        return f"; did you mean {near[0]}?" if near else ""

    def error(self, message: str) -> NoReturn:
        self.exit(_EXIT_BAD_INPUT, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status.

    0; 1 for a loss that diverged, a check of `doctor` that failed, or output that could not be
    written; 2 for bad input; 130 for an interrupt. Without `arguments` it is the program, and takes
    over the process: its signals and how it writes.
    """
    if arguments is not None:
        return _run(arguments)
    # The program: this process is the command's alone.
    # Read when torch is loaded: threads that spin while they wait lose badly beside others.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is None:  # closed: `>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - for the whole process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # σ on a terminal that knows none
    warnings.formatwarning = lambda message, *_: f"Warning: {message}\n"
    status = _run(sys.argv[1:], listen=True)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # all is done: what comes now comes too late
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    status = _flushed(status)
    others = [one for one in threading.enumerate() if not one.daemon]
    for thread in others:
        if thread is not threading.main_thread():
            thread.join(1.0)
            if thread.is_alive():  # a game that hangs, and never will be done
                os._exit(status)
    return status


def _run(arguments: Sequence[str], *, listen: bool = False) -> int:
    for module in _NEEDED:
        try:
            importlib.import_module(module)
        except ImportError:
            _complain(f"noisynet: needs {module}: pip install 'noisynet[train]'")
            return _EXIT_BAD_INPUT
    from ..envs import unanswered
    from ..runs.errors import RunError
    from ..training import Diverged
    from ..training.interrupts import interrupt_once

    parsed = _parser().parse_args(arguments)
    said = f"noisynet {parsed.command}: "
    try:
        if listen:
            interrupt_once()
        with stdout_for_json(parsed):
            return int(parsed.run(parsed) or 0)
    except Diverged as error:
        _complain(said + str(error))
        return _EXIT_DIVERGED
    except RunError as error:
        _complain(said + str(error))
        return _EXIT_BAD_INPUT
    except KeyboardInterrupt:
        _complain(f"{said}interrupted{unanswered()}")
        return _EXIT_INTERRUPTED
    except BrokenPipeError:
        return 0
    except OSError as error:
        _complain(said + str(error))
        return _EXIT_UNWRITTEN


def _complain(text: str) -> None:
    with suppress(OSError):  # of a terminal that is closed
        print(text, file=sys.stderr, flush=True)


def _flushed(status: int) -> int:
    """Write out what was printed; say so where it cannot be, and return the exit status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            # Python would try again while it ends, and complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if not isinstance(error, BrokenPipeError):
                _complain(f"noisynet: {stream.name}: {error.strerror}")
                status = status or _EXIT_UNWRITTEN
    return status


def _parser() -> argparse.ArgumentParser:
    # Each of these imports what only its command needs, and not before it runs.
    from .. import __version__
    from .compare import add_compare
    from .doctor import add_doctor
    from .evaluate import add_evaluate
    from .presets import add_presets
    from .report import add_report
    from .runs import add_runs
    from .suite import add_suite
    from .train import add_resume, add_train
    from .watch import add_watch

    parser = _Parser(
        prog="noisynet",
        allow_abbrev=False,
        description="The command line: the one place where everything is put together.",
    )
    parser.add_argument("--version", action="version", version=f"noisynet {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    for add in (
        add_train, add_resume, add_evaluate, add_doctor, add_watch, add_report, add_compare,
        add_runs, add_suite, add_presets,
    ):  # fmt: skip
        add(commands)
    return parser
