"""Which fields may change between two sessions of a run: stated at the field, by `MAY_CHANGE`.

All others must stay what they were when the checkpoint was made: it holds what they shaped
(networks, optimizer, replay, games, counts of what is due), or a change of them would do nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MayChange:
    """What marks a field that may have another value when a run goes on."""


MAY_CHANGE = MayChange()
