"""Which fields may change between two sessions of a run: those marked with `MAY_CHANGE`.

All others must keep the values with which the checkpoint was made: it holds what depends on them
(networks, optimizer, replay, games, counts of what is due), or changing them would have no effect.

`Spans` marks a field whose schedule ends with the run, so that changing `steps` stretches it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .conditions import Sections


@dataclass(frozen=True)
class MayChange:
    """The mark of a field whose value may change when a run is resumed."""


MAY_CHANGE = MayChange()


@dataclass(frozen=True)
class Spans:
    """The mark of a field whose schedule ends at the run's last step."""

    when: Callable[[Sections], bool]
    """Whether the schedule ends there, given the other fields."""


SPANS_THE_RUN = Spans(lambda _: True)
