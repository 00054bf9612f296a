"""Three cures that keep an agent's network able to learn, applied at intervals of updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..diagnostics.units import THRESHOLD
from ..plasticity import Revived, revive
from ..runs.seeds import stream

ROWS = 256
"""The largest number of observations on which dormant units are looked for."""


@dataclass(frozen=True, kw_only=True)
class Revival:
    """Cures for a network that stops learning; intervals are in updates, and 0 means never."""

    redo_every: int = 0
    """Interval at which dormant units are reinitialised (ReDo, arXiv 2302.12902)."""
    dormant_threshold: float = THRESHOLD
    shrink_every: int = 0
    """Interval of shrink and perturb: weights move towards new initial ones (arXiv 1910.08475)."""
    shrink_factor: float = 0.5
    """The share of a weight that stays."""
    reset_every: int = 0
    """Interval at which everything after the torso is reinitialised (arXiv 2205.07802)."""

    def is_due(self, updates: int) -> bool:
        """Return whether any cure is due after this number of updates."""
        intervals = (self.redo_every, self.shrink_every, self.reset_every)
        return any(_divides(every, updates) for every in intervals)

    def needs_target_copy(self, updates: int) -> bool:
        """Return whether a cure is due after which the target network must be copied again."""
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
        """Apply the cures that are due.

        `arguments` is a batch, or a tuple of the network's arguments, on which dormant units are
        found. Random numbers depend only on `seed` and `updates`, so a resumed run repeats them.
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
