"""The noisy convolutions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, Self, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional

from .functional import check_channels, noisy_conv
from .initial import InitName, NoiseOptions
from .kernels.convolution import Sizes, convolve, noisy_kernels, with_one_batch_dimension
from .layer import NoisyLayer, check_bias, check_sizes
from .noise import NoiseName, NoiseSpec, WeightNoise
from .weights import Weights

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class AnyNoisyConv(NoisyLayer):
    """The base of the noisy convolutions, transposed or not, for any number of spatial dimensions.

    A subclass is also the convolution of torch that it names.
    """

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        *,
        groups: int,
        bias: bool,
        **options: Any,
    ) -> None:
        """Build the layer with the initial values that `init` names."""
        check_sizes(groups=groups, in_channels=in_channels, out_channels=out_channels)
        for size in kernel_size if isinstance(kernel_size, Iterable) else (kernel_size,):
            check_sizes(kernel_size=size)
        check_bias(bias)
        sizes = (in_channels, out_channels, kernel_size)
        super().__init__(*sizes, groups=groups, bias=bias, **options)

    @classmethod
    def from_conv(cls, conv: nn.Module, **options: Unpack[NoiseOptions]) -> Self:
        """Build a noisy layer that shares the Parameters of `conv` as its means; σ is new.

        `options` are noise, sigma0, init and learned, as in the constructor; σ requires grad if it
        is `learned`, even where the means are frozen. Raises TypeError for a layer of another kind,
        and ValueError for an unknown option or a layer that cannot become noisy.
        """
        return cls.from_plain(conv, **options)

    def noise_spec(self) -> NoiseSpec:
        """Return the spec of this layer's noise: its kind and sizes.

        p is the number of input channels of a group times the number of kernel positions.
        """
        inputs = self.in_channels // self.groups * math.prod(self.kernel_size)
        bias = self.bias_sigma is not None
        return NoiseSpec(self.noise, inputs, self.out_channels, bias, self.groups)

    def effective_weight(self) -> tuple[Tensor, Tensor | None]:
        """Return the (weight, bias) under the draw in force.

        They have the shapes of the means, with a leading dimension of rows for one draw per row. A
        fresh layer makes a new draw for this call; with the noise off these are the means
        themselves.
        """
        noise = self.noise_in_force()
        if noise is None:
            return self.weight, self.bias
        return self._kernels(self.weights()[0], noise)

    def _kernels(self, weights: Weights, noise: WeightNoise) -> tuple[Tensor, Tensor | None]:
        raise NotImplementedError


class NoisyConv(AnyNoisyConv):
    """The base of `NoisyConv1d`, `NoisyConv2d` and `NoisyConv3d`."""

    padding_mode: PaddingMode
    _reversed_padding_repeated_twice: list[int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: str | Sizes = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
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
        super().__init__(
            in_channels, out_channels, kernel_size, padding_mode=padding_mode, **options
        )

    def _kernels(self, weights: Weights, noise: WeightNoise) -> tuple[Tensor, Tensor | None]:
        return noisy_kernels(weights, noise)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer to (…, channels, *spatial); return (…, q, *positions)."""
        spatial = len(self.kernel_size)
        check_channels(input, self.in_channels, spatial)
        noise = self.noise_in_force(input, features=1 + spatial)
        padded, padding = self._padded(input)
        stride, dilation, groups = self.stride, self.dilation, self.groups
        if noise is None:
            return convolve(padded, self.weight, self.bias, groups, stride, padding, dilation)
        places = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        return noisy_conv(padded, *self.weights()[0], noise, **places)

    def _padded(self, input: Tensor) -> tuple[Tensor, str | Sizes]:
        """Apply padding other than zeros; return the input and the padding that is left to do."""
        if self.padding_mode == "zeros":
            return input, self.padding
        flat = with_one_batch_dimension(input, len(self.kernel_size))
        flat = functional.pad(flat, self._reversed_padding_repeated_twice, mode=self.padding_mode)
        leading = input.shape[: input.ndim - 1 - len(self.kernel_size)]
        return flat.reshape(*leading, *flat.shape[-1 - len(self.kernel_size) :]), 0


class NoisyConv1d(NoisyConv, nn.Conv1d):
    """A convolution over one dimension with weights μ_w + σ_w ⊙ ε_w and biases μ_b + σ_b ⊙ ε_b.

    It is an `nn.Conv1d`: `weight` (q, channels/groups, kernel) and `bias` (q,) are the means μ;
    `weight_sigma` and `bias_sigma` are learned beside them. The kernel is treated as a q × p matrix
    with p = channels/groups · kernel: factorised noise has one f(ε_i) for each input channel and
    kernel position, and one f(ε_j) for each output channel; each group has its own ε_i. Options and
    states of the noise are those of `noisynet.NoisyLinear`.

    Input (…, channels, length), or (…, rows, channels, length) where one draw per row is in force.
    Such a draw needs memory for a kernel per row (see `noisynet.layers.noisy_conv`), and so does
    independent noise that is fresh per row: all positions of an output share the weights, so noise
    drawn at the outputs would not be exact. Raises ValueError for an unknown option and for an
    input that does not fit.
    """

    plain = nn.Conv1d


class NoisyConv2d(NoisyConv, nn.Conv2d):
    """A convolution over two dimensions with weights μ_w + σ_w ⊙ ε_w and biases μ_b + σ_b ⊙ ε_b.

    It is an `nn.Conv2d`: `weight` (q, channels/groups, *kernel) and `bias` (q,) are the means μ;
    `weight_sigma` and `bias_sigma` are learned beside them. Everything else is as in
    `noisynet.NoisyConv1d`, with p = channels/groups · kernel elements.

    Input (…, channels, height, width), or (…, rows, channels, height, width) where one draw per row
    is in force.
    """

    plain = nn.Conv2d


class NoisyConv3d(NoisyConv, nn.Conv3d):
    """A convolution over three dimensions with weights μ_w + σ_w ⊙ ε_w, biases μ_b + σ_b ⊙ ε_b.

    It is an `nn.Conv3d`: `weight` (q, channels/groups, *kernel) and `bias` (q,) are the means μ;
    `weight_sigma` and `bias_sigma` are learned beside them. Everything else is as in
    `noisynet.NoisyConv1d`, with p = channels/groups · kernel elements.

    Input (…, channels, depth, height, width), or (…, rows, channels, depth, height, width) where
    one draw per row is in force.
    """

    plain = nn.Conv3d
