"""The program: options in, one line for what is wrong, and the exit status."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

_EXIT_BAD_INPUT = 2
_EXIT_DIVERGED = 1

_NEEDED = (
    "pydantic", "yaml", "numpy", "gymnasium", "safetensors", "rich", "scipy", "tensorboard",
)  # fmt: skip


class _Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(_EXIT_BAD_INPUT, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status.

    0; 1 for a loss that diverged, or a check of `doctor` that failed; 2 for bad input; 130 for an
    interrupt.
    """
    # Read when torch is loaded: threads that spin while they wait lose badly beside others.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for module in _NEEDED:
        try:
            importlib.import_module(module)
        except ImportError:
            print(f"noisynet: needs {module}: pip install 'noisynet[train]'", file=sys.stderr)
            return _EXIT_BAD_INPUT
    from ..runs.errors import RunError
    from ..training import Diverged

    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed) or 0)
    except Diverged as error:
        print(f"noisynet {parsed.command}: {error}", file=sys.stderr)
        return _EXIT_DIVERGED
    except RunError as error:
        print(f"noisynet {parsed.command}: {error}", file=sys.stderr)
        return _EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print(f"noisynet {parsed.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


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
