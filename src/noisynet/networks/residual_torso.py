"""The residual CNN of IMPALA, with BTR's additions: width, pooling, spectral norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from .image_torsos import FramesTorso, normalised_image

_FILTERS = (16, 32, 32)
_NARROWEST = 1 / min(_FILTERS)


@dataclass(frozen=True, kw_only=True)
class ImpalaSettings:
    """Settings of an `ImpalaTorso`. Raises ValueError for a value out of its range."""

    width: float = 1.0
    """Factor on the filters of the three blocks, 16, 32 and 32; BTR (arXiv 2411.03820) has 2."""
    pooling: int = 6
    """Height and width to which adaptive max pooling reduces the last block's output; 0: none."""
    spectral_norm: bool = False
    """Whether the residual convolutions are divided by their largest singular value."""

    def __post_init__(self) -> None:
        if not self.width >= _NARROWEST:
            raise ValueError(
                f"width: got {self.width!r}, expected at least {_NARROWEST}, one filter"
            )
        if self.pooling < 0:
            raise ValueError(f"pooling: got {self.pooling!r}, expected 0 or more")


class ResidualUnit(nn.Sequential):
    """A residual unit: x plus two convolutions, each after a ReLU; the shape stays the same."""

    def __init__(self, channels: int, *, spectral_norm: bool, layer_norm: bool) -> None:
        """Build the convolutions; with `layer_norm` the first one's output is normalised."""
        first, second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        if spectral_norm:
            first, second = map(parametrizations.spectral_norm, (first, second))
        norm = [normalised_image(channels)] if layer_norm else []
        super().__init__(nn.ReLU(), first, *norm, nn.ReLU(), second)

    def forward(self, input: Tensor) -> Tensor:
        """Return features (N, channels, height, width), the shape of the input."""
        return input + super().forward(input)


class ImpalaTorso(FramesTorso):
    """The deep CNN of IMPALA (Espeholt et al. 2018, arXiv 1802.01561, fig. 3).

    Three blocks of a convolution, max pooling of 3 by 3 with stride 2, and two residual units; then
    adaptive max pooling and a ReLU: 1152 features from 84 by 84 pixels, 2304 at twice the width.
    With `layer_norm`, the output of the first convolution of each block and of each unit is
    normalised over a whole image, without gain and bias.

    Spectral norm (Miyato et al. 2018, arXiv 1802.05957) is torch's parametrization. A forward that
    records gradients, as in an update, improves the estimate of the largest singular value by one
    step of the power iteration. Other forwards leave it unchanged, so acting, computing targets and
    diagnosis do not change the network. With `always_estimates`, every forward takes a step.
    """

    name = "impala"

    def __init__(
        self,
        observation_shape: Sequence[int],
        settings: ImpalaSettings | None = None,
        *,
        standardised: bool = False,
        layer_norm: bool = False,
    ) -> None:
        """Build the blocks for observations of (stack, height, width)."""
        super().__init__()
        settings = ImpalaSettings() if settings is None else settings
        # Each block halves the image, rounding up; pooling would only repeat a smaller one.
        self.smallest = 8 * (max(settings.pooling, 1) - 1) + 1
        self._check_shape(observation_shape)
        self.always_estimates = False
        modules: list[nn.Module] = []
        channels = observation_shape[0]
        for wide in _FILTERS:
            filters = int(wide * settings.width)
            norm = [normalised_image(filters)] if layer_norm else []
            units = [
                ResidualUnit(filters, spectral_norm=settings.spectral_norm, layer_norm=layer_norm)
                for _ in range(2)
            ]
            convolution = nn.Conv2d(channels, filters, 3, padding=1)
            modules += [convolution, *norm, nn.MaxPool2d(3, stride=2, padding=1), *units]
            channels = filters
        modules += [nn.AdaptiveMaxPool2d(settings.pooling)] if settings.pooling else []
        self._take(observation_shape, [*modules, nn.ReLU()], standardised=standardised)

    def forward(self, observation: Tensor) -> Tensor:
        """Return features (…, features)."""
        estimates = self.always_estimates or torch.is_grad_enabled()
        for part in self.convolutions.modules():
            if isinstance(part, parametrize.ParametrizationList):
                # torch's spectral norm takes a step only in train mode.
                part.train(estimates)
        return super().forward(observation)
