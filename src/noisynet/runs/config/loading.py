"""Loading of configs from presets, YAML files and environment ids."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from .. import yaml_text
from ..errors import RunError, nearest, shown
from ..folder import check_format
from . import former_versions, spelling
from .renaming import renamed_in_sections
from .schema import SECTIONS, Config, overridden, parse, with_present_names


def preset_names() -> list[str]:
    """Return the names of the package's presets, sorted."""
    folder = resources.files("noisynet.runs") / "presets"
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    )


def load(name: str, overrides: Mapping[str, Any] | None = None) -> Config:
    """Build the config of a preset, a YAML file or an environment id, with fields overridden.

    `overrides` maps bare field names to values. An id with "/" or "-v" gets the preset made for
    its kind: `atari` for ALE games, `minatar`, `chain`, `deep-sea`, and `control` for the rest.
    Raises RunError with one line for an unknown preset, a file that cannot be read, an unknown key
    or a value that does not fit.
    """
    if name.endswith((".yaml", ".yml")):
        values = _inherited(_read_file(Path(name)), name)
    elif name in preset_names():
        values = _inherited(_read_preset(name), name)
    elif _is_run(name):
        raise RunError(
            f"PRESET: got the run {name}: `noisynet resume` continues it, and its config.yaml "
            "trains another like it"
        )
    elif _is_environment(name):
        bases = {"ALE/": "atari", "MinAtar/": "minatar", "Chain-": "chain", "DeepSea-": "deep-sea"}
        base = next((base for start, base in bases.items() if name.startswith(start)), "control")
        values = overridden(_inherited(_read_preset(base), base), {"environment": name})
    else:
        raise RunError(
            f"PRESET: got {shown(name)}, expected a preset (`noisynet presets` lists them), an "
            "environment id such as ALE/Breakout-v5, module:function, or a YAML file"
            f"{_nearest_presets(name)}"
        )
    given = with_present_names(overrides or {})
    config = parse(overridden(values, {"preset": name, **given}), name, given)
    config.check_used(given)
    return config


def _nearest_presets(name: object) -> str:
    near = nearest(str(name), preset_names(), 3, 0.4)
    return f"; nearest: {', '.join(near)}" if near else ""


def can_be_preset(name: str) -> bool:
    """Return whether a name can be that of a preset, a YAML file or an environment."""
    is_file = name.endswith((".yaml", ".yml"))
    return is_file or name in preset_names() or _is_environment(name)


def first_comment(preset: str) -> str:
    """Return the first sentence of the comment at the top of a preset of the package."""
    lines = _preset_text(preset).splitlines()
    said = " ".join(
        line.lstrip("# ") for line in itertools.takewhile(lambda one: one.startswith("#"), lines)
    )
    return re.split(r"(?<! al)\. ", said)[0].removesuffix(".")


def _is_run(name: str) -> bool:
    try:
        return (Path(name) / "config.yaml").is_file()
    except (OSError, ValueError):  # not a valid file name
        return False


def _is_environment(name: str) -> bool:
    return any(part in name for part in ("/", "-v", ":")) or name.startswith(("Chain-", "DeepSea-"))


def _read_preset(name: str) -> dict[str, Any]:
    return _mapping(_preset_text(name), name)


def _preset_text(name: str) -> str:
    return (resources.files("noisynet.runs") / "presets" / f"{name}.yaml").read_text("utf-8")


def _read_file(path: Path) -> dict[str, Any]:
    return _mapping(yaml_text.read(path), str(path))


def _mapping(text: str, origin: str) -> dict[str, Any]:
    try:
        values = yaml_text.load(text)
    except ValueError as error:
        raise RunError(f"{origin}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise RunError(f"{origin}: got {type(values).__name__}, expected sections of settings")
    # A run's own config.yaml starts with the format of the run's folder.
    if "format" in values:
        check_format(origin, values.pop("format"))
    whole = {
        name: {} if part is None and name in SECTIONS else part for name, part in values.items()
    }
    try:
        # Before the values are merged with a preset, in which fields have their present names.
        return renamed_in_sections(former_versions.with_present_sections(whole), spelling.OURS)
    except ValueError as error:
        raise RunError(f"{origin}: {error}") from None


def _inherited(values: dict[str, Any], origin: str, depth: int = 0) -> dict[str, Any]:
    """Return a config merged over the preset that it names with `extends`."""
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if parent not in preset_names() or depth > 5:
        raise RunError(
            f"{origin}: extends: got {shown(parent)}, expected a preset (`noisynet presets` lists "
            f"them){_nearest_presets(parent)}"
        )
    merged = _inherited(_read_preset(parent), parent, depth + 1)
    for key, part in values.items():
        if isinstance(part, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = {**merged[key], **part}
        else:
            merged[key] = part
    return merged


def from_yaml(text: str, origin: str) -> Config:
    """Read a run's `config.yaml`; raises RunError, with one line, if it is not valid."""
    return parse(_mapping(text, origin), origin)
