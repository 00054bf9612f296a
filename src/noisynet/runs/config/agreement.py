"""What a field's value must agree with: stated at the field, as `Fits` in its annotation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .conditions import Sections


@dataclass(frozen=True)
class Fits:
    """What a field's value must agree with."""

    conflict: Callable[[Sections], str | None]
    """Returns field, value, what it expects and why; None where all agree."""


def needs_q_values(field: str, section: str) -> Fits:
    """Refuse anything but a field's zero where no Q-values are learned."""

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
    """Refuse a value other than off where the algorithm learns from rollouts."""

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
    """Refuse a cure where workers share parameters that each of them steps."""

    def conflict(config: Sections) -> str | None:
        value = getattr(config.plasticity, field)
        if not value or config.learning.algorithm != "a3c":
            return None
        return (
            f"{field}: got {value}, expected 0: a3c's workers share the parameters, and each steps "
            "them while others would move them (a2c has one learner)"
        )

    return Fits(conflict)
