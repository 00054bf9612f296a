"""American spellings of the config's fields and choices, accepted beside the British ones."""

from __future__ import annotations

OURS = {"standardize_frames": "standardise_frames", "prioritized": "prioritised"}
"""{American: British} names of fields."""

AMERICAN = {ours: american for american, ours in OURS.items()}


def british_kind(kind: object) -> object:
    """Return a kind of noise by its British name."""
    return "factorised" if kind == "factorized" else kind
