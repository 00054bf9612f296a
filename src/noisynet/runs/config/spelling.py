"""American spellings of the config's fields and choices, accepted beside the British ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OURS = {"standardize_frames": "standardise_frames", "prioritized": "prioritised"}
"""{American: British} names of fields."""

AMERICAN = {ours: american for american, ours in OURS.items()}


def with_british_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields by their British names.

    A field that is there under both names keeps both, which validation refuses.
    """
    return {
        name if OURS.get(name, name) in values else OURS.get(name, name): value
        for name, value in values.items()
    }


def sections_with_british_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's sections with the fields of each `with_british_names`."""
    return {
        name: with_british_names(part) if isinstance(part, Mapping) else part
        for name, part in values.items()
    }


def british_kind(kind: object) -> object:
    """Return a kind of noise by its British name."""
    return "factorised" if kind == "factorized" else kind
