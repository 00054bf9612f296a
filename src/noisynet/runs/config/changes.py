"""Which fields may change between two sessions of a run: stated at the field, by `MAY_CHANGE`.

All others must stay what they were when the checkpoint was made: it holds what they shaped
(networks, optimizer, replay, games, counts of what is due), or a change of them would do nothing.

`Spans` marks a field whose schedule ends with the run: another `steps` changes what it does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .conditions import Sections


@dataclass(frozen=True)
class MayChange:
    """What marks a field that may have another value when a run goes on."""


MAY_CHANGE = MayChange()


@dataclass(frozen=True)
class Spans:
    """What marks a field whose schedule ends at the run's last step."""

    when: Callable[[Sections], bool]
    """Whether it does, beside the other fields."""


SPANS_THE_RUN = Spans(lambda _: True)
