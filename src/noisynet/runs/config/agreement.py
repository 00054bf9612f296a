"""Agreement of a field's value with other fields: declared as `Fits` in its annotation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .conditions import Sections


@dataclass(frozen=True)
class Fits:
    """A condition on a field's value, given the other fields."""

    conflict: Callable[[Sections], str | None]
    """Returns a message with the field, its value, the expected one and why; None if all agree."""


def needs_q_values(field: str, section: str) -> Fits:
    """Return a condition that refuses any value but 0 or false if no Q-values are learned."""

    def conflict(config: Sections) -> str | None:
        value = getattr(getattr(config, section), field)
        if not value or not config.learning.is_actor_critic:
            return None
        return (
            f"{field}: got {value}, expected {type(value)()}: {config.learning.algorithm} learns "
            "no Q-values"
        )

    return Fits(conflict)


def needs_replay(field: str, section: str) -> Fits:
    """Return a condition that refuses any value but 0 or false if there is no replay."""

    def conflict(config: Sections) -> str | None:
        value = getattr(getattr(config, section), field)
        if not value or config.learning.has_replay:
            return None
        return (
            f"{field}: got {value}, expected {type(value)()}: {config.learning.algorithm} learns "
            "from rollouts, not from a replay"
        )

    return Fits(conflict)


def needs_one_learner(field: str) -> Fits:
    """Return a condition that refuses a cure with a3c, whose workers share their parameters."""

    def conflict(config: Sections) -> str | None:
        value = getattr(config.plasticity, field)
        if not value or config.learning.algorithm != "a3c":
            return None
        return (
            f"{field}: got {value}, expected 0: a3c's workers share the parameters, and each steps "
            "them while others would move them (a2c has one learner)"
        )

    return Fits(conflict)
