"""Conversion of configs that former versions wrote to the fields of this version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import shown
from .renaming import renamed_in_sections

_GONE = ("final_update_every", "final_update_return")
"""Removed fields of `learning`, which made updates rarer once the agent won."""

RENAMED = {"noise": "noise_kind"}
"""{former name: present name} of fields: `--noise` now always means whether noise acts."""


def with_present_sections(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's sections, converted to this version.

    Raises ValueError if a removed field is set.
    """
    return _with_rollouts(_without_what_is_gone(renamed_in_sections(values, RENAMED)))


def _without_what_is_gone(values: dict[str, Any]) -> dict[str, Any]:
    learning = values.get("learning")
    if not isinstance(learning, dict):
        return values
    for name in _GONE:
        if learning.get(name) is not None:
            raise ValueError(
                f"{name}: got {shown(learning[name])}, expected nothing: the field is gone; a run "
                "that was made with it goes on with git commit 839f2e3, which still has it"
            )
    kept = {name: value for name, value in learning.items() if name not in _GONE}
    return {**values, "learning": kept}


def _with_rollouts(values: dict[str, Any]) -> dict[str, Any]:
    """Move `rollout_steps` to the section `rollouts` from `actor_critic`, where it used to be."""
    former = values.get("actor_critic")
    if not isinstance(former, dict) or "rollout_steps" not in former:
        return values
    moved = {"rollout_steps": former["rollout_steps"]}
    rest = {name: value for name, value in former.items() if name not in moved}
    rollouts = values.get("rollouts")
    rollouts = {**moved, **rollouts} if isinstance(rollouts, dict) else moved
    return {**values, "rollouts": rollouts, "actor_critic": rest}


def gone_since(made_with: Mapping[str, Any]) -> list[str]:
    """Return a line for each removed field that a checkpoint was made with.

    `made_with` is what the config's `by_section` returned then. Without these fields, all updates
    that they had skipped would be due at once.
    """
    learning = made_with.get("learning", {})
    return [
        f"{name} was {shown(learning[name])}, is gone"
        for name in _GONE
        if learning.get(name) is not None
    ]
