"""The command line: `noisynet train`, `evaluate` and so on, a file for each command."""

from .program import main

__all__ = ["main"]
