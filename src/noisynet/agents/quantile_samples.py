"""The τ that implicit quantiles are sampled at, each use with random numbers of its own."""

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
    """The τ of one update, uniform in 0…1: each row of the batch has samples of its own."""

    online: Tensor
    """(N, B): what the online net predicts."""
    target: Tensor
    """(N′, B): what the target net makes targets of."""
    choice: Tensor | None
    """(K, B): whose mean chooses the next action by the online net; None where it does not."""


class QuantileSampler:
    """Draws τ, for acting and for updates, by one named generator each.

    Args:
        online: N, quantiles that an update predicts.
        target: N′, of its targets.
        acting: K, whose mean the acting Q is.
        seed: of both generators.
        device: where τ is drawn.
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
        """Draw the τ of an update on so many rows; `choice`: those that choose an action too."""
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
        """Take over what `arrays` returned; raises KeyError where it is not there."""
        generator_from_array(self._acting, arrays["generator.acting_quantiles"])
        generator_from_array(self.learning, arrays["generator.learning_quantiles"])


def _uniform(samples: int, rows: int, generator: torch.Generator) -> Tensor:
    return torch.rand(samples, rows, generator=generator, device=generator.device)
