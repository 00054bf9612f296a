"""A user's own module, wrapped as a torso for the agents."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .image_torsos import as_floats, is_large_image

MakeTorso = Callable[[tuple[int, ...]], nn.Module]
"""Builds a torso, (B, *shape) to (B, features), from an observation's shape."""


class OwnTorso(nn.Module):
    """A user's module as a torso: observations (…, *shape) to features (…, features).

    The module receives floats (B, *shape) and returns (B, features). The bytes of large images
    (`is_large_image`) are divided by 255 first.
    """

    def __init__(self, body: nn.Module, observation_shape: Sequence[int]) -> None:
        """Wrap a module; raise ValueError if it does not map observations to features."""
        super().__init__()
        self.body = body
        self.observation_shape = tuple(observation_shape)
        self._brightness = is_large_image(observation_shape)
        shown = (2, *observation_shape)
        try:
            with torch.no_grad():
                probe = body(torch.zeros(shown))
        except Exception as error:
            raise ValueError(
                f"{type(body).__name__}: raised {type(error).__name__} for observations {shown}: "
                f"{error}"
            ) from error
        if not isinstance(probe, Tensor) or probe.ndim != 2 or len(probe) != 2:
            got = tuple(probe.shape) if isinstance(probe, Tensor) else type(probe).__name__
            raise ValueError(
                f"{type(body).__name__}: got {got} for observations {shown}, expected (2, features)"
            )
        self.features = int(probe.shape[1])

    def prepare(self, observation: Tensor) -> Tensor:
        """Turn integers into floats, brightness in 0…1; `forward` calls this itself."""
        if observation.is_floating_point():
            return observation
        return as_floats(observation).div_(255 if self._brightness else 1)

    def forward(self, observation: Tensor) -> Tensor:
        """Return features (…, features)."""
        observation = self.prepare(observation)
        leading = observation.shape[: -len(self.observation_shape)]
        rows = observation.reshape(-1, *self.observation_shape)
        return self.body(rows).reshape(*leading, self.features)
