"""Random fractions τ for implicit quantiles, with separate generators for acting and learning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..runs.seeds import stream
from .saved_arrays import generator_from_array, generator_to_array


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

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the state of both generators."""
        return {
            "generator.acting_quantiles": generator_to_array(self._acting),
            "generator.learning_quantiles": generator_to_array(self.learning),
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Restore what `arrays` returned; raises KeyError if a state is missing."""
        generator_from_array(self._acting, arrays["generator.acting_quantiles"])
        generator_from_array(self.learning, arrays["generator.learning_quantiles"])


def _uniform(samples: int, rows: int, generator: torch.Generator) -> Tensor:
    return torch.rand(samples, rows, generator=generator, device=generator.device)
