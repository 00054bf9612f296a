"""`noisynet presets`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from .options import print_json

if TYPE_CHECKING:
    from ..runs.config import Config


def add_presets(commands: Any) -> None:
    """Add `presets`."""
    presets = commands.add_parser("presets", help="list the presets", allow_abbrev=False)
    presets.add_argument("--json", action="store_true", help="print one JSON object")
    presets.set_defaults(run=_presets)


def _presets(parsed: argparse.Namespace) -> int:
    from ..runs import config

    listed: dict[str, Config] = {name: config.load(name) for name in config.preset_names()}
    if parsed.json:
        print_json(parsed, {name: one.model_dump(mode="json") for name, one in listed.items()})
        return 0
    width = max(map(len, listed))
    for name, one in listed.items():
        game, exploration = one.environment.environment, one.exploration.exploration
        print(f"{name:<{width}} {game:<20} exploration: {exploration}")
    return 0
