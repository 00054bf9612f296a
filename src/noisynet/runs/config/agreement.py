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


def _off_unless(when: Callable[[Sections], bool], field: str, section: str, otherwise: str) -> Fits:
    """Return a condition that refuses any value but 0 or false unless `when` holds.

    `otherwise` goes on from the algorithm's name, and says why it does not.
    """

    def conflict(config: Sections) -> str | None:
        value = getattr(getattr(config, section), field)
        if not value or when(config):
            return None
        got = f"{value:g}" if isinstance(value, float) else value
        off = False if isinstance(value, bool) else 0
        return f"{field}: got {got}, expected {off}: {config.learning.algorithm}{otherwise}"

    return Fits(conflict)


def needs_q_values(field: str, section: str) -> Fits:
    """Return a condition that refuses a field if no Q-values are learned."""
    return _off_unless(
        lambda config: not config.learning.is_actor_critic, field, section, " learns no Q-values"
    )


def needs_policy(field: str, otherwise: str) -> Fits:
    """Return a condition that refuses a field of the actor-critic for other agents."""
    return _off_unless(
        lambda config: config.learning.is_actor_critic, field, "actor_critic", otherwise
    )


def needs_replay(field: str, section: str) -> Fits:
    """Return a condition that refuses a field if there is no replay."""
    otherwise = " learns from rollouts, not from a replay"
    return _off_unless(lambda config: config.learning.has_replay, field, section, otherwise)


def needs_one_learner(field: str) -> Fits:
    """Return a condition that refuses a cure with a3c, whose workers share their parameters."""
    return _off_unless(
        lambda config: config.learning.algorithm != "a3c",
        field,
        "plasticity",
        "'s workers share the parameters, and each steps them while others would move them (a2c "
        "has one learner)",
    )
