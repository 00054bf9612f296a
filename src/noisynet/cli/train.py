"""`noisynet train`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .fields import FIRST, add_fields, describe, overrides, restore_preset
from .options import add_json, add_ray, add_track, as_path, check_ray, trackers
from .outcome import run_and_report
from .parser import Parser

if TYPE_CHECKING:
    from ..training import Outcome

_PRESET = "pqn-pong"


def add_train(train: Parser) -> None:
    """Add the options of `train`, one for every field of the config."""
    from ..runs import config
    from ..runs.config.former_versions import RENAMED

    train.usage = "noisynet train [PRESET] [--out FOLDER] [--FIELD VALUE ...]"
    train.description = "Train an agent and keep the run in a folder."
    train.lists_all = "--help-all"
    train.add_argument(
        "preset",
        nargs="?",
        metavar="PRESET",
        help=f"a preset's name, an environment id, module:function or a YAML file (default: "
        f"{_PRESET})",
    )
    train.add_argument(
        "--out",
        type=as_path,
        metavar="FOLDER",
        help="the run's folder, new or empty (default: runs/PRESET-DATE-TIME)",
    )
    add_ray(train)
    add_track(train)
    add_json(train)
    train.add_argument(
        "-h", "--help", action="store_true", help="show this help, with the options used most"
    )
    train.add_argument("--help-all", action="store_true", help="show all options")
    add_fields(train)
    train.elsewhere = {
        config.option_name(former): f"here it is {config.option_name(present)}; `evaluate` and "
        f"`watch` take {config.option_name(former)}"
        for former, present in RENAMED.items()
    }
    train.set_defaults(run=_train, parser=train)


def _train(parsed: argparse.Namespace) -> int:
    from ..runs import config

    restore_preset(parsed)
    preset = _PRESET if parsed.preset is None else parsed.preset
    given = overrides(parsed)
    chosen = config.load(preset, given)
    if parsed.help or parsed.help_all:
        train: Parser = parsed.parser
        describe(train, chosen, given, everything=parsed.help_all)
        train.epilog = (
            f"Defaults are those of {preset}."
            if parsed.help_all
            else f"These are the {len(FIRST)} most used of {len(config.SECTION_OF)} fields, with "
            f"the defaults of {preset}. `noisynet train {preset} --help-all` lists all of them, "
            "`noisynet presets` the presets."
        )
        train.print_help()
        return 0

    from rich.console import Console

    from ..runs import default_path
    from ..training.display import make_display

    made: list[Path] = []

    def make() -> Path:
        made.append(default_path(preset))
        return made[0]

    path = parsed.out or make
    display = make_display(Console(stderr=parsed.json))
    listeners = [display, *trackers(parsed)]

    def run() -> Outcome:
        if chosen.scale.actors is not None:
            from .. import samplers

            address = parsed.ray
            return samplers.start(chosen, path, listeners, address=address, tell=display.preparing)
        from ..assemble import start

        check_ray(parsed.ray)
        return start(chosen, path, listeners, tell=display.preparing)

    return run_and_report(parsed, run, lambda: parsed.out or (made[0] if made else None))
