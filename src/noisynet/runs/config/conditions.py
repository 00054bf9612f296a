"""Where a field of the config does something: stated at the field, as `Acts` in its annotation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


class Sections(Protocol):
    """A whole config, as a field sees it: a section, below schema.py, cannot name its type."""

    environment: Any
    network: Any
    exploration: Any
    learning: Any
    rollouts: Any
    actor_critic: Any
    plasticity: Any
    scale: Any
    training: Any

    @property
    def learns_beside_play(self) -> bool:
        """Whether one process plays, and learns from a replay between its steps."""
        ...

    @property
    def can_overlap(self) -> bool:
        """Whether one process can play while it learns what was played before."""
        ...

    @property
    def why_not_beside_play(self) -> str:
        """Why the learner does not take updates from a replay beside its own play."""
        ...

    @property
    def why_not_overlap(self) -> str:
        """Why one process cannot play while it learns what was played before."""
        ...


@dataclass(frozen=True)
class Acts:
    """A condition under which a field does something, and why it does nothing otherwise."""

    when: Callable[[Sections], bool]
    otherwise: Callable[[Sections], str]


ALWAYS = Acts(lambda _: True, lambda _: "")


def algorithm_which(what: str) -> Callable[[Sections], str]:
    """Return why a field does nothing: what the algorithm does, or lacks."""
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
