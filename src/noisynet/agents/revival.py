"""When an agent's network is revived, and how: three cures by the number of updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..diagnostics.units import THRESHOLD
from ..plasticity import Revived, revive
from ..runs.seeds import stream

ROWS = 256
"""Observations by which units are judged, at most."""


@dataclass(frozen=True, kw_only=True)
class Revival:
    """Cures for a network that stops learning, each every so many updates; 0: never."""

    redo_every: int = 0
    """Dormant units are drawn anew (ReDo, arXiv 2302.12902)."""
    dormant_threshold: float = THRESHOLD
    shrink_every: int = 0
    """All weights are moved towards new initial ones (shrink and perturb, arXiv 1910.08475)."""
    shrink_factor: float = 0.5
    """The share of a weight that stays."""
    reset_every: int = 0
    """All behind the torso is drawn anew (arXiv 2205.07802)."""

    def is_due(self, updates: int) -> bool:
        """Return whether any cure is due after so many updates."""
        intervals = (self.redo_every, self.shrink_every, self.reset_every)
        return any(_divides(every, updates) for every in intervals)

    def moves_all(self, updates: int) -> bool:
        """Return whether one is due after which a target network must be copied anew."""
        return any(_divides(every, updates) for every in (self.shrink_every, self.reset_every))

    def apply(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        arguments: Any,
        *,
        updates: int,
        seed: int,
    ) -> Revived:
        """Apply what is due; a batch or its arguments show which units are dormant.

        Its random numbers are those of seed and update, so that a run that goes on repeats them.
        """
        head = [name for name, _ in network.named_children() if name != "torso"]
        return revive(
            network,
            optimizer,
            arguments if _divides(self.redo_every, updates) else None,
            threshold=self.dormant_threshold,
            shrink=self.shrink_factor if _divides(self.shrink_every, updates) else None,
            reset=head if _divides(self.reset_every, updates) else (),
            generator=torch.Generator().manual_seed(stream(seed, f"revive {updates}")),
        )


def _divides(every: int, updates: int) -> bool:
    return every > 0 and updates % every == 0
