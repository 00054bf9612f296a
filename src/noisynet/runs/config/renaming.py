"""Fields that are given under another name, such as a former or an American one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def renamed(fields: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return fields by the names of this version; `names` is {other name: its name here}.

    A field that is there under both names keeps both, which validation refuses.
    """
    return {
        name if names.get(name, name) in fields else names.get(name, name): value
        for name, value in fields.items()
    }


def renamed_in_sections(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a config's sections, each with its fields `renamed`."""
    return {
        name: renamed(part, names) if isinstance(part, Mapping) else part
        for name, part in values.items()
    }
