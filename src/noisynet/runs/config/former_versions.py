"""What configs of former versions held, read as this version has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import shown

_GONE = ("final_update_every", "final_update_return")
"""Fields of `learning` that made updates further apart once the agent won."""


RENAMED = {"noise": "noise_kind"}
"""{former name: present name} of fields: `--noise` says everywhere whether noise acts."""


def fields_as_now(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields by their present names. One that is there under both keeps them: an error."""
    return {
        name if RENAMED.get(name, name) in values else RENAMED.get(name, name): value
        for name, value in values.items()
    }


def as_now(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's sections as this version has them.

    Raises ValueError where a field that is gone is set.
    """
    return _with_rollouts(_without_what_is_gone(sections_as_now(values)))


def sections_as_now(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's sections with their fields by their present names."""
    return {
        name: fields_as_now(part) if isinstance(part, Mapping) else part
        for name, part in values.items()
    }


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
    """Give rollouts the section of their own that they did not always have."""
    former = values.get("actor_critic")
    if not isinstance(former, dict) or "rollout_steps" not in former:
        return values
    moved = {"rollout_steps": former["rollout_steps"]}
    rest = {name: value for name, value in former.items() if name not in moved}
    rollouts = values.get("rollouts")
    rollouts = {**moved, **rollouts} if isinstance(rollouts, dict) else moved
    return {**values, "rollouts": rollouts, "actor_critic": rest}


def gone_since(made_with: Mapping[str, Any]) -> list[str]:
    """Return what a checkpoint was made with and no config can have now, a line for each field.

    `made_with` is what the config's `by_section` returned then. Without these fields, all the
    updates that they had left out would be due at once.
    """
    learning = made_with.get("learning", {})
    return [
        f"{name} was {shown(learning[name])}, is gone"
        for name in _GONE
        if learning.get(name) is not None
    ]
