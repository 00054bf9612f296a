"""NROWAN's penalty: the noise of the output layers as a term of the loss, weighted by the return.

The loss becomes L + k D, where D is the mean |σ| of the output layer and k grows with the returns
seen (Han et al., arXiv 2006.10980, §4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..layers import sigma_parameters
from .scale import checked_number


def sigma_penalty(*layers: nn.Module) -> Tensor:
    """Return D, the mean |σ| over the weights and biases of all noisy layers in the modules.

    Pass only the output layers: one, or those of the value and the advantages. The result has a
    gradient: the sign of each σ, divided by the number of σ. Raises ValueError for modules without
    noisy layers.
    """
    sigmas = [sigma for layer in layers for sigma in sigma_parameters(layer)]
    if not sigmas:
        names = ", ".join(type(layer).__name__ for layer in layers) or "nothing"
        raise ValueError(f"sigma_penalty: got {names}, expected a noisy layer at least")
    return torch.cat([sigma.abs().flatten() for sigma in sigmas]).mean()


@dataclass(frozen=True)
class PenaltyWeight:
    """The weight k of the penalty, which grows with returns from 0 at `low` to `final` at `high`.

    k = final · (R - low) / (high - low), where R is the mean return of the last games. k is 0
    before the first game has ended, and always between 0 and `final`. Raises ValueError for a
    negative `final`, and for bounds that are not finite, or not in this order.
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
        """Return k for the mean return of the last games, which is None if no game has ended."""
        if mean_return is None:
            return 0.0
        share = (mean_return - self.low) / (self.high - self.low)
        return self.final * min(max(share, 0.0), 1.0)
