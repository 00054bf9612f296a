"""The noisy convolutions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import initial
from .kernels.convolution import (
    Sizes,
    check_channels,
    convolve,
    noisy_conv,
    noisy_kernels,
    with_one_batch_dimension,
)
from .noise import NoiseSpec, WeightNoise
from .linear import check_bias, check_noise_options, check_sizes
from .layer import NoisyLayer, take_over

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class NoisyConv(NoisyLayer):
    """Be a noisy convolution of some number of dimensions: what they share.

    A subclass is also an `nn.Conv1d` or `nn.Conv2d`.
    """

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    padding_mode: PaddingMode
    _reversed_padding_repeated_twice: list[int]

    @classmethod
    def _from_conv(
        cls,
        conv: nn.Conv1d | nn.Conv2d,
        plain: type[nn.Module],
        noise: str,
        sigma0: float | None,
        init: str,
    ) -> Self:
        layer = cls.__new__(cls)
        take_over(layer, conv, plain)
        layer._become_noisy(check_noise_options(noise, sigma0, init), sigma0, init)
        layer.reset_sigmas()
        return layer

    @property
    def _fan_in(self) -> int:
        """Count the inputs of each output: p = channels of a group · kernel positions."""
        return self.in_channels // self.groups * math.prod(self.kernel_size)

    def noise_spec(self) -> NoiseSpec:
        """Say what one draw of this layer consists of."""
        return NoiseSpec(
            self.noise, self._fan_in, self.out_channels, self.bias is not None, self.groups
        )

    def reset_parameters(self) -> None:
        """Set μ and σ to new initial values."""
        if "weight_sigma" not in self._parameters:
            return
        initial.initialise_means(
            self.weight, self.bias, noise=self.noise, init=self.init, inputs=self._fan_in
        )
        self.reset_sigmas()

    def reset_sigmas(self) -> None:
        """Set σ back to its initial value; the means stay."""
        initial.initialise_sigmas(
            self.weight_sigma,
            self.bias_sigma,
            noise=self.noise,
            init=self.init,
            sigma0=self.sigma0,
            inputs=self._fan_in,
            outputs=self.out_channels // self.groups,
        )

    def effective_weight(self) -> tuple[Tensor, Tensor | None]:
        """Give the (weight, bias) that the draw in force makes.

        Shapes (q, c, *kernel) and (q,), with rows in front for one draw per row. A fresh layer
        makes a new draw for this call; with the noise off these are the means themselves.
        """
        noise = cast("WeightNoise | None", self.noise_in_force())
        if noise is None:
            return self.weight, self.bias
        return noisy_kernels(self.weight, self.bias, self.weight_sigma, self.bias_sigma, noise)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer to (…, channels, *spatial); gives (…, q, *positions)."""
        spatial = len(self.kernel_size)
        check_channels(input, self.in_channels, spatial)
        leading = input.shape[: input.ndim - 1 - spatial]
        noise = cast("WeightNoise | None", self.noise_in_force(leading))
        padded, padding = self._padded(input)
        stride, dilation, groups = self.stride, self.dilation, self.groups
        if noise is None:
            return convolve(
                padded,
                self.weight,
                self.bias,
                stride=stride,
                padding=padding,
                dilation=dilation,
                groups=groups,
            )
        return noisy_conv(
            padded,
            self.weight,
            self.bias,
            self.weight_sigma,
            self.bias_sigma,
            noise,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        )

    def _padded(self, input: Tensor) -> tuple[Tensor, str | Sizes]:
        """Give the input with what is not zeros around it, and the padding that is left to do."""
        if self.padding_mode == "zeros":
            return input, self.padding
        flat = with_one_batch_dimension(input, len(self.kernel_size))
        flat = functional.pad(flat, self._reversed_padding_repeated_twice, mode=self.padding_mode)
        leading = input.shape[: input.ndim - 1 - len(self.kernel_size)]
        return flat.reshape(*leading, *flat.shape[-1 - len(self.kernel_size) :]), 0

    def extra_repr(self) -> str:
        """Say sizes, kind of noise and its state."""
        return f"{super().extra_repr()}, noise={self.noise!r} ({self.describe_noise()})"


class NoisyConv1d(NoisyConv, nn.Conv1d):
    """Convolve over one dimension with weights μ_w + σ_w ⊙ ε_w and biases μ_b + σ_b ⊙ ε_b.

    It is an `nn.Conv1d`: `weight` (q, channels/groups, kernel) and `bias` (q,) are the means μ;
    `weight_sigma` and `bias_sigma` are learned beside them. The kernel is read as the q × p matrix
    it is, p = channels/groups · kernel: factorised noise has one f(ε_i) for each input channel and
    kernel position, and one f(ε_j) for each output channel; each group has an ε_i of its own.
    Options and states of the noise are those of `noisynet.NoisyLinear`.

    Input (…, channels, length), or (…, rows, channels, length) where one draw per row is in force;
    such a draw is a kernel of its own for each row, in memory too (`noisynet.layers.noisy_conv`
    says what it costs). This holds for independent noise that is fresh per row as well: all
    positions of an output share the weights, so noise drawn at the outputs would not be exact.
    Raises ValueError for an unknown option and for an input that does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int],
        stride: int | tuple[int] = 1,
        padding: str | int | tuple[int] = 0,
        dilation: int | tuple[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        noise: str = "factorised",
        sigma0: float | None = None,
        init: str = "paper",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the layer with the initial values that `init` names."""
        _check_options(in_channels, out_channels, kernel_size, bias)
        kind = check_noise_options(noise, sigma0, init)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device=device,
            dtype=dtype,
        )
        self._become_noisy(kind, sigma0, init)
        self.reset_parameters()

    @classmethod
    def from_conv(
        cls,
        conv: nn.Conv1d,
        *,
        noise: str = "factorised",
        sigma0: float | None = None,
        init: str = "paper",
    ) -> NoisyConv1d:
        """Make a noisy layer whose means are the very Parameters of `conv`; σ is new.

        σ always requires grad, also where the means are frozen.
        """
        return cls._from_conv(conv, nn.Conv1d, noise, sigma0, init)


class NoisyConv2d(NoisyConv, nn.Conv2d):
    """Convolve over two dimensions with weights μ_w + σ_w ⊙ ε_w and biases μ_b + σ_b ⊙ ε_b.

    It is an `nn.Conv2d`: `weight` (q, channels/groups, *kernel) and `bias` (q,) are the means μ;
    `weight_sigma` and `bias_sigma` are learned beside them. The kernel is read as the q × p matrix
    it is, p = channels/groups · kernel elements: factorised noise has one f(ε_i) for each input
    channel and kernel position, and one f(ε_j) for each output channel; each group has an ε_i of
    its own. Options and states of the noise are those of `noisynet.NoisyLinear`.

    Input (…, channels, height, width), or (…, rows, channels, height, width) where one draw per row
    is in force; such a draw is a kernel of its own for each row, in memory too
    (`noisynet.layers.noisy_conv` says what it costs). This holds for independent noise that is
    fresh per row as well: all positions of an output share the weights, so noise drawn at the
    outputs would not be exact. Raises ValueError for an unknown option and for an input that does
    not fit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        noise: str = "factorised",
        sigma0: float | None = None,
        init: str = "paper",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the layer with the initial values that `init` names."""
        _check_options(in_channels, out_channels, kernel_size, bias)
        kind = check_noise_options(noise, sigma0, init)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device=device,
            dtype=dtype,
        )
        self._become_noisy(kind, sigma0, init)
        self.reset_parameters()

    @classmethod
    def from_conv(
        cls,
        conv: nn.Conv2d,
        *,
        noise: str = "factorised",
        sigma0: float | None = None,
        init: str = "paper",
    ) -> NoisyConv2d:
        """Make a noisy layer whose means are the very Parameters of `conv`; σ is new.

        σ always requires grad, also where the means are frozen.
        """
        return cls._from_conv(conv, nn.Conv2d, noise, sigma0, init)


def _check_options(
    in_channels: int, out_channels: int, kernel_size: int | tuple[int, ...], bias: bool
) -> None:
    check_sizes(in_channels=in_channels, out_channels=out_channels)
    for size in kernel_size if isinstance(kernel_size, Iterable) else (kernel_size,):
        check_sizes(kernel_size=size)
    check_bias(bias)
