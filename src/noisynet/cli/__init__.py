"""The command line: `noisynet train`, `evaluate` and so on, a file for each command."""

import signal
import sys

# Only as the program: until it handles signals, Ctrl-C ends it without a traceback of imports.
if (
    sys.argv[0].endswith(("/noisynet", "/noisynet/__main__.py"))
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from .program import main

__all__ = ["main"]
