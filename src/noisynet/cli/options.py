"""What options take: whole numbers, and config fields as YAML writes them."""

from __future__ import annotations

import argparse
from typing import Any

_LARGEST = 2_000_000_000


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    return _whole(text, 1)


def seed(text: str) -> int:
    """Read a whole number of at least 0."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value < _LARGEST:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected a whole number from {least} to {_LARGEST - 1}"
        )
    return value


def add_steps(command: argparse.ArgumentParser) -> None:
    """Add the limit on a game that a command plays."""
    command.add_argument(
        "--steps",
        type=positive,
        default=None,
        metavar="N",
        help="agent steps that a game may take before it is left unfinished (default: 50000)",
    )


def field_value(text: str) -> Any:
    """Read a value as YAML does, but numbers as Python does: YAML takes 010 for 8."""
    import yaml

    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    return value if value is None or isinstance(value, bool | str | list) else text
