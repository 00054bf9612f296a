"""The program `noisynet`: its own options, errors of one line, and the exit status."""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import io
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress

from .commands import COMMANDS, OPTIONS, Command, overview
from .options import stdout_for_json
from .parser import EXIT_BAD_INPUT

_EXIT_DIVERGED = _EXIT_UNWRITTEN = 1
_EXIT_INTERRUPTED = 130

_WINDOWS = (
    "the commands need Linux or macOS (on Windows: WSL); the layers, the doctor and the adapters "
    "for other libraries work here"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status.

    The status is 0 for success; 1 for a loss that diverged, a check of `doctor` or a trial of
    `suite` that failed, or output that could not be written; 2 for bad input; 130 for an interrupt.
    Without `arguments` this is the program, and it takes over the process: its signals and its
    standard streams.
    """
    if arguments is not None:
        return _run(arguments)
    # From here on, the process belongs to the command alone.
    # Torch reads this when it loads: threads that spin while they wait are slow on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is None:  # closed: `>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - for the whole process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may be unable to show σ
    warnings.formatwarning = lambda message, *_: f"Warning: {message}\n"
    try:
        status = _run(sys.argv[1:], listen=True)
    except SystemExit as left:  # argparse, after a help or bad input
        if not isinstance(left.code, int):
            raise
        status = left.code
    except BrokenPipeError:
        status = 0
    except OSError as error:
        _print_error(f"noisynet: {error}")
        status = _EXIT_UNWRITTEN
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # the work is done: a signal comes too late now
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    status = _flushed(status)
    others = [one for one in threading.enumerate() if not one.daemon]
    for thread in others:
        if thread is not threading.main_thread():
            thread.join(1.0)
            if thread.is_alive():  # a game that hangs would keep the process alive
                os._exit(status)
    return status


def _run(arguments: Sequence[str], *, listen: bool = False) -> int:
    """Handle the program's own options, or run a command; import only what that needs."""
    from .. import __version__

    debug = False
    for place, word in enumerate(arguments):
        if word in ("-h", "--help"):
            break
        if word == "--version":
            print(f"noisynet {__version__}")
            return 0
        if word.partition("=")[0] == "--print-completion":
            return _print_completion([*word.split("=")[1:], *arguments[place + 1 :]])
        if word == "--debug":
            debug = True
        elif word in COMMANDS:
            return _command(COMMANDS[word], arguments[place + 1 :], debug=debug, listen=listen)
        else:
            return _unknown(word)
    print(overview(__version__), end="")
    return 0


def _unknown(word: str) -> int:
    kind, known = ("option", OPTIONS) if word.startswith("-") else ("command", COMMANDS)
    near = difflib.get_close_matches(word[:80], known, 1)
    meant = f"; did you mean {near[0]}?" if near else ""
    _print_error(f"noisynet: {word}: no such {kind}{meant} (`noisynet --help` lists them)")
    return EXIT_BAD_INPUT


def _print_completion(words: Sequence[str]) -> int:
    from .completion import SHELLS, script

    if (missing := _missing()) is not None:
        _print_error(missing)
        return EXIT_BAD_INPUT
    if len(words) != 1 or words[0] not in SHELLS:
        got = " ".join(words) or "nothing"
        _print_error(f"noisynet: --print-completion: got {got}, expected {' or '.join(SHELLS)}")
        return EXIT_BAD_INPUT
    print(script(words[0]), end="")
    return 0


def _missing() -> str | None:
    """Return the error for a system or an environment that no command can run in, else None."""
    from ..extras import install_command, missing_for_training

    if importlib.util.find_spec("fcntl") is None:
        return f"noisynet: {_WINDOWS}"
    if (module := missing_for_training()) is not None:
        return f"noisynet: needs {module}: {install_command('train')}"
    return None


def _command(command: Command, arguments: Sequence[str], *, debug: bool, listen: bool) -> int:
    if (missing := _missing()) is not None:
        _print_error(missing)
        return EXIT_BAD_INPUT
    parsed = command.parser().read(arguments)
    debug = debug or parsed.debug
    from ..runs.errors import Diverged, RunError

    said = f"noisynet {command.name}: "
    try:
        if listen and command.loads_torch and not _asks_for_help(parsed):
            _listen()
        with stdout_for_json(parsed, own_process=listen):
            return int(parsed.run(parsed) or 0)
    except RunError as error:
        _explain(debug)
        _print_error(said + str(error))
        return _EXIT_DIVERGED if isinstance(error, Diverged) else EXIT_BAD_INPUT
    except KeyboardInterrupt:
        _explain(debug)
        _print_error(f"{said}interrupted{_unanswered()}")
        return _EXIT_INTERRUPTED
    except BrokenPipeError:
        return 0
    except OSError as error:
        _explain(debug)
        _print_error(said + str(error))
        return _EXIT_UNWRITTEN


def _asks_for_help(parsed: argparse.Namespace) -> bool:
    """Return whether a command is only to print its help, which needs no torch."""
    return getattr(parsed, "help", False) or getattr(parsed, "help_all", False)


def _listen() -> None:
    """Make signals end the command cleanly; this imports torch, which the command needs anyway."""
    from ..training.interrupts import interrupt_once

    interrupt_once()


def _unanswered() -> str:
    """Return the end of an error that says which game does not respond; empty if all do."""
    asked = sys.modules.get("noisynet.envs.calls")  # not imported: no game has been called
    return "" if asked is None else asked.unanswered()


def _explain(debug: bool) -> None:
    """With --debug, print the traceback of the current exception and of its causes."""
    if debug:
        with suppress(OSError):
            traceback.print_exc()


def _print_error(text: str) -> None:
    with suppress(OSError):  # the terminal may be closed
        print(text, file=sys.stderr, flush=True)


def _flushed(status: int) -> int:
    """Flush the standard streams; report an error, and return the exit status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            # Otherwise Python would try again as it exits, and complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if not isinstance(error, BrokenPipeError):
                _print_error(f"noisynet: {stream.name}: {error.strerror}")
                status = status or _EXIT_UNWRITTEN
    return status
