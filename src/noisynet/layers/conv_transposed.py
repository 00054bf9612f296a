"""The noisy transposed convolutions."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from .conv import AnyNoisyConv
from .functional import check_channels, noisy_conv_transpose
from .initial import InitName
from .kernels.convolution import (
    Sizes,
    convolve_transposed,
    noisy_transposed_kernels,
    with_one_batch_dimension,
)
from .noise import NoiseName, WeightNoise
from .weights import Weights


class NoisyConvTranspose(AnyNoisyConv):
    """The base of the noisy transposed convolutions, for any number of spatial dimensions."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sizes = 1,
        padding_mode: Literal["zeros"] = "zeros",
        *,
        noise: NoiseName = "factorised",
        sigma0: float | None = None,
        init: InitName = "paper",
        learned: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the layer with the initial values that `init` names."""
        options: dict[str, Any] = {"noise": noise, "sigma0": sigma0, "init": init}
        options |= {"learned": learned, "device": device, "dtype": dtype, "groups": groups}
        options |= {"stride": stride, "padding": padding, "dilation": dilation, "bias": bias}
        options |= {"output_padding": output_padding, "padding_mode": padding_mode}
        super().__init__(in_channels, out_channels, kernel_size, **options)

    def _kernels(self, weights: Weights, noise: WeightNoise) -> tuple[Tensor, Tensor | None]:
        return noisy_transposed_kernels(weights, noise, self.groups)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Apply the layer to (…, channels, *spatial); return (…, q, *positions).

        `output_size` chooses the number of positions where the stride leaves more than one choice.
        """
        spatial = len(self.kernel_size)
        check_channels(input, self.in_channels, spatial)
        noise = self.noise_in_force(input, features=1 + spatial)
        own: Any = self
        output_padding: Sizes = own._output_padding(
            with_one_batch_dimension(input, spatial),
            output_size,
            self.stride,
            self.padding,
            self.kernel_size,
            spatial,
            self.dilation,
        )
        places: dict[str, Any] = {"stride": self.stride, "padding": self.padding}
        places |= {"output_padding": output_padding, "dilation": self.dilation}
        places["groups"] = self.groups
        if noise is None:
            return convolve_transposed(input, self.weight, self.bias, **places)
        return noisy_conv_transpose(input, *self.weights()[0], noise, **places)


class NoisyConvTranspose1d(NoisyConvTranspose, nn.ConvTranspose1d):
    """A transposed convolution over one dimension with weights μ_w + σ_w ⊙ ε_w.

    It is an `nn.ConvTranspose1d`: `weight` (channels, q/groups, kernel) and `bias` (q,) are the
    means μ; `weight_sigma` and `bias_sigma` are learned beside them. The kernel is treated as the
    q × p matrix of the untransposed convolution, with p = channels/groups · kernel: factorised
    noise has one f(ε_i) for each input channel and kernel position, and one f(ε_j) for each output
    channel. Options and states of the noise, and draws per row, are those of
    `noisynet.NoisyConv1d`.

    Input (…, channels, length), or (…, rows, channels, length) where one draw per row is in force.
    Raises ValueError for an unknown option and for an input that does not fit.
    """

    plain = nn.ConvTranspose1d


class NoisyConvTranspose2d(NoisyConvTranspose, nn.ConvTranspose2d):
    """A transposed convolution over two dimensions with weights μ_w + σ_w ⊙ ε_w.

    It is an `nn.ConvTranspose2d`; everything else is as in `noisynet.NoisyConvTranspose1d`. Input
    (…, channels, height, width), or (…, rows, channels, height, width) where one draw per row is in
    force.
    """

    plain = nn.ConvTranspose2d


class NoisyConvTranspose3d(NoisyConvTranspose, nn.ConvTranspose3d):
    """A transposed convolution over three dimensions with weights μ_w + σ_w ⊙ ε_w.

    It is an `nn.ConvTranspose3d`; everything else is as in `noisynet.NoisyConvTranspose1d`. Input
    (…, channels, depth, height, width), or (…, rows, channels, depth, height, width) where one draw
    per row is in force.
    """

    plain = nn.ConvTranspose3d
