"""Random fractions τ for implicit quantiles, with separate generators for acting and learning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..runs.seeds import stream


@dataclass(frozen=True)
class SampledQuantiles:
    """The τ of one update, uniform in [0, 1), drawn separately for each row of the batch."""

    online: Tensor
    """(N, B): fractions of the online net's predictions."""
    target: Tensor
    """(N′, B): fractions of the target net's quantiles, from which targets are made."""
    choice: Tensor | None
    """(K, B): fractions at which the online net chooses the next action; None if it does not."""


class QuantileSampler:
    """A source of τ for acting and for updates, with a named generator for each.

    Args:
        online: N, the number of quantiles that an update predicts.
        target: N′, the number of quantiles in its targets.
        acting: K, the number of quantiles whose mean is the Q that actions are chosen by.
        seed: seed of both generators.
        device: device on which τ is drawn.
    """

    def __init__(
        self, *, online: int, target: int, acting: int, seed: int, device: torch.device
    ) -> None:
        self._sizes = online, target, acting
        self._acting = torch.Generator(device).manual_seed(stream(seed, "acting quantiles"))
        self.learning = torch.Generator(device).manual_seed(stream(seed, "learning quantiles"))
        self.generators = {"acting_quantiles": self._acting, "learning_quantiles": self.learning}
        """The generators by their names in checkpoints."""

    def of_actions(self, rows: int) -> Tensor:
        """Draw τ (K, rows) for acting."""
        return _uniform(self._sizes[2], rows, self._acting)

    def of_update(self, rows: int, *, choice: bool) -> SampledQuantiles:
        """Draw the τ of an update on a batch; with `choice`, also those that choose actions."""
        online, target, acting = self._sizes
        return SampledQuantiles(
            _uniform(online, rows, self.learning),
            _uniform(target, rows, self.learning),
            _uniform(acting, rows, self.learning) if choice else None,
        )


def _uniform(samples: int, rows: int, generator: torch.Generator) -> Tensor:
    return torch.rand(samples, rows, generator=generator, device=generator.device)
