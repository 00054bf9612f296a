"""Conditions under which a field has an effect: declared as `Acts` in its annotation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .schema import Config as Sections
else:
    # A config is made of its sections, which cannot import it.
    Sections = Any


@dataclass(frozen=True)
class Acts:
    """A condition under which a field has an effect, and why it has none otherwise."""

    when: Callable[[Sections], bool]
    otherwise: Callable[[Sections], str]


ALWAYS = Acts(lambda _: True, lambda _: "")


def algorithm_which(what: str) -> Callable[[Sections], str]:
    """Return a function that explains why a field has no effect, by a trait of the algorithm."""
    return lambda config: f"algorithm is {config.learning.algorithm}, which {what}"


WITH_NOISE = Acts(
    lambda config: config.exploration.has_noise,
    lambda config: f"exploration is {config.exploration.exploration}, no layer is noisy",
)
OF_REPLAY = Acts(lambda config: config.learning.has_replay, algorithm_which("learns from rollouts"))
OF_Q_VALUES = Acts(
    lambda config: not config.learning.is_actor_critic, algorithm_which("learns no Q-values")
)
WITHOUT_MUNCHAUSEN = Acts(
    lambda config: config.learning.munchausen == 0,
    lambda _: "munchausen is above 0, the target net's softmax policy chooses",
)
