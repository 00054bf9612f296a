"""NROWAN's penalty: the noise of the outputs as a part of the loss, which returns make heavier.

L + k D, with D the mean |σ| of the output layer and k growing with the returns seen (Han et al.,
arXiv 2006.10980, §4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..layers import sigma_parameters
from .scale import checked_number


def sigma_penalty(*layers: nn.Module) -> Tensor:
    """Return D, the mean |σ| over the weights and biases of all noisy layers of some modules.

    Give the output layers alone: one, or those of the value and the advantages. The result has a
    gradient, σ's sign divided by their number. Raises ValueError for modules without noisy layers.
    """
    sigmas = [sigma for layer in layers for sigma in sigma_parameters(layer)]
    if not sigmas:
        names = ", ".join(type(layer).__name__ for layer in layers) or "nothing"
        raise ValueError(f"sigma_penalty: got {names}, expected a noisy layer at least")
    return torch.cat([sigma.abs().flatten() for sigma in sigmas]).mean()


@dataclass(frozen=True)
class PenaltyWeight:
    """The weight k of the penalty by the returns seen: from 0 at `low` to `final` at `high`.

    k = final · (R - low) / (high - low), R being the mean return of the last games; 0 before the
    first game, and never outside of 0 and `final`. Raises ValueError for a negative `final`, and
    bounds that are not finite, or not in this order.
    """

    final: float
    low: float
    high: float

    def __post_init__(self) -> None:
        checked_number("final", self.final)
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"low, high: got {self.low!r} and {self.high!r}, expected finite returns, the "
                "lower one first"
            )

    def __call__(self, mean_return: float | None) -> float:
        """Return k for the mean return of the last games; None: no game has ended."""
        if mean_return is None:
            return 0.0
        share = (mean_return - self.low) / (self.high - self.low)
        return self.final * min(max(share, 0.0), 1.0)
