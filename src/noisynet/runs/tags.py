"""Tags of figures in TensorBoard and trackers: in groups, without those of single environments."""

from __future__ import annotations

from collections.abc import Mapping

_GROUPS = {
    "game": "games",
    "snr": "noise/snr",
    "sigma": "noise/sigma",
    "dormant": "units/dormant",
    "norm": "units/norm",
}


def grouped(figures: Mapping[str, float]) -> dict[str, float]:
    """Return the figures of metrics.jsonl that are shown, under grouped tags.

    The groups are loss/, games/, noise/, units/, time/, and learning/ for figures without one.
    """
    return {
        _tag(name): value
        for name, value in figures.items()
        if "/env_" not in name and name != "game/environment"
    }


def _tag(name: str) -> str:
    family, _, rest = name.partition("/")
    if not rest:
        return f"loss/{name}" if "loss" in name else f"learning/{name}"
    return f"{_GROUPS.get(family, family)}/{rest}"
