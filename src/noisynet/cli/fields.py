"""Options of `train` and `resume` for the config's fields, and their help.

Everything is derived from the fields: the values that they accept, their defaults, and when they
act. The help of `train` shows the values of the chosen preset.
"""

from __future__ import annotations

import argparse
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any

from .parser import Flag, Parser, negative

if TYPE_CHECKING:
    from ..runs.config import Config

FIRST = (
    "environments", "exploration", "sigma0", "learning_rate", "n_step", "batch_size", "steps",
    "seed", "device", "threads",
)  # fmt: skip
"""The fields that people set first: `--help` shows these, `--help-all` all of them."""

_PREFIX = "field_"
_NO = "false"


def add_fields(parser: Parser, among: Container[str] | None = None) -> None:
    """Add an option for every field, grouped by section; for a flag, also `--no-FIELD`.

    A field with a different American spelling has an option in that spelling, too. Only the fields
    in `among` are added; None means all.
    """
    from ..runs import config
    from ..runs.config.spelling import AMERICAN

    groups: dict[str, Any] = {}
    for section, name, info in config.fields():
        if among is not None and name not in among:
            continue
        if section not in groups:
            groups[section] = parser.add_argument_group(config.about(section))
        takes = config.ACCEPTED[name]
        options = [config.option_name(one) for one in (name, AMERICAN.get(name)) if one]
        shared: dict[str, Any] = {
            "dest": f"{_PREFIX}{name}",
            "metavar": takes.placeholder,
            "help": _plain(info.description or ""),
        }
        if takes.kind == "flag" and not takes.choices:
            groups[section].add_argument(*options, action=Flag, nargs="?", **shared)
            groups[section].add_argument(
                *map(negative, options),
                dest=shared["dest"],
                action="store_const",
                const=_NO,
                help=argparse.SUPPRESS,
            )
        else:
            groups[section].add_argument(*options, **shared)


def hide_fields(parser: Parser) -> dict[argparse.Action, str | None]:
    """Hide the fields' options in the help; return the help text of each."""
    hidden = {one: one.help for one in parser.actions() if one.dest.startswith(_PREFIX)}
    for one in hidden:
        one.help = argparse.SUPPRESS
    return hidden


def overrides(parsed: argparse.Namespace) -> dict[str, Any]:
    """Return the fields that were set on the command line."""
    from ..runs import config

    return {
        name.removeprefix(_PREFIX): config.ACCEPTED[name.removeprefix(_PREFIX)].read(text)
        for name, text in vars(parsed).items()
        if name.startswith(_PREFIX) and text is not None
    }


def restore_preset(parsed: argparse.Namespace) -> None:
    """Restore a PRESET that the flag before it took as its value: `train --double cartpole`."""
    from ..runs import config
    from ..runs.config.accepted import is_truth

    for name, text in vars(parsed).items():
        if parsed.preset is not None or not name.startswith(_PREFIX) or text is None:
            continue
        flag = config.ACCEPTED[name.removeprefix(_PREFIX)].kind == "flag"
        if flag and not is_truth(text) and config.can_be_preset(text):
            parsed.preset = text
            setattr(parsed, name, "true")
            return


def describe(train: Parser, chosen: Config, given: Mapping[str, Any], *, everything: bool) -> None:
    """Make the help show a config's values: of all fields, or of FIRST and those in `given`."""
    from ..runs import config

    infos = {name: info for _, name, info in config.fields()}
    values = {name: value for part in chosen.by_section().values() for name, value in part.items()}
    for action in train.actions():
        name = action.dest.removeprefix(_PREFIX)
        if not action.dest.startswith(_PREFIX) or action.const == _NO:
            continue
        if not everything and name not in FIRST and name not in given:
            action.help = argparse.SUPPRESS
            continue
        reason = chosen.why_unused(name)
        said = f"default: {_shown(values[name])}" if name not in given else "given"
        said = said if reason is None else f"no effect: {reason}"
        action.help = _plain(f"{infos[name].description} ({said})")


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(str, value)) or "no layers"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(text: str) -> str:
    return text.replace("%", "%%")
