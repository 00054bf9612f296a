"""Noisy convolutions: one kernel for the batch, or one for each row by a grouped convolution."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ..noise import FactorisedNoise, WeightNoise
from ..weights import Weights

Sizes = int | tuple[int, ...]

Convolve = Callable[[Tensor, Tensor, Tensor | None, int], Tensor]
"""A convolution of (…, channels, *spatial) with a kernel, a bias and a number of groups."""

Build = Callable[[Weights, WeightNoise], tuple[Tensor, Tensor | None]]
"""A function that returns the kernel μ + σ ⊙ ε and its bias, with leading rows if they differ."""


def apply(
    input: Tensor,
    weights: Weights,
    noise: WeightNoise,
    groups: int,
    build: Build,
    convolve: Convolve,
) -> Tensor:
    """Convolve an input (…, channels, *spatial) with the kernels of a noise, which must fit."""
    rows = noise.rows
    if rows is not None and math.prod(rows) == 0:
        # No row, so no draw: there is nothing to compute but the shape.
        return convolve(input, weights.weight, weights.bias, groups)
    kernels, biases = build(weights, noise)
    if rows is None:
        return convolve(input, kernels, biases, groups)
    # Rows side by side, as the groups of one convolution: (…, rows · groups · c, *spatial).
    spatial, count = weights.weight.ndim - 2, math.prod(rows)
    leading = input.shape[: input.ndim - 1 - spatial]
    outer = leading[: len(leading) - len(rows)]
    output = convolve(
        input.reshape(*outer, count * input.shape[-1 - spatial], *input.shape[-spatial:]),
        kernels.reshape(-1, *weights.weight.shape[1:]),
        None if biases is None else biases.reshape(-1),
        count * groups,
    )
    channels = output.shape[-1 - spatial] // count
    output = output.reshape(*leading, channels, *output.shape[-spatial:])
    if output.ndim != 4 or spatial != 2:
        return output
    # The memory layout of nn.Conv2d's output, which has no groups in place of rows.
    by_channels = is_channels_last(input) or is_channels_last(weights.weight)
    layout = torch.channels_last if by_channels else torch.contiguous_format
    return output.contiguous(memory_format=layout)


def is_channels_last(images: Tensor) -> bool:
    """Return whether images (rows, channels, height, width) are in channels-last memory format."""
    by_channels = images.is_contiguous(memory_format=torch.channels_last)
    return by_channels and images.stride(1) == 1 and images.shape[-2:].numel() > 1


def noisy_kernels(weights: Weights, noise: WeightNoise) -> tuple[Tensor, Tensor | None]:
    """Return μ + σ ⊙ ε of a kernel (…, q, c, *K) and its bias (…, q); the bias may be None.

    The q × p matrix of factorised noise is never built, and the backward keeps only its factors.
    """
    weight, weight_sigma = weights.weight, weights.weight_sigma
    kernel = weight.shape[1:]
    if isinstance(noise, FactorisedNoise):
        # With a dimension of groups: ε_i is (…, groups, 1, c, *K), ε_j (…, groups, q/groups, 1, …).
        by_group = (noise.groups, -1)
        inputs = noise.input.unflatten(-1, (noise.groups, 1, *kernel))
        outputs = noise.output.unflatten(-1, (*by_group, *(1 for _ in kernel)))
        mean, sigma = weight.unflatten(0, by_group), weight_sigma.unflatten(0, by_group)
        kernels = torch.addcmul(mean, sigma * inputs, outputs)
        kernels = kernels.flatten(-2 - len(kernel), -1 - len(kernel))
    else:
        kernels = torch.addcmul(weight, weight_sigma, noise.weight.unflatten(-1, kernel))
    return kernels, weights.bias_under(noise)


def noisy_transposed_kernels(
    weights: Weights, noise: WeightNoise, groups: int
) -> tuple[Tensor, Tensor | None]:
    """Return μ + σ ⊙ ε of a transposed kernel (…, c · groups, q/groups, *K) and its bias (…, q).

    The noise has the shapes of an untransposed kernel: ε_i is (…, groups · c · |K|), ε_j (…, q).
    """
    kernel = weights.weight.shape[2:]
    mean = weights.weight.unflatten(0, (groups, -1))
    sigma = weights.weight_sigma.unflatten(0, (groups, -1))
    channels = mean.shape[1]
    if isinstance(noise, FactorisedNoise):
        inputs = noise.input.unflatten(-1, (groups, channels, 1, *kernel))
        outputs = noise.output.unflatten(-1, (groups, 1, -1, *(1 for _ in kernel)))
        kernels = torch.addcmul(mean, sigma * inputs, outputs)
    else:
        drawn = noise.weight.unflatten(-1, (channels, *kernel)).unflatten(
            -2 - len(kernel), (groups, -1)
        )
        kernels = torch.addcmul(mean, sigma, drawn.transpose(-2 - len(kernel), -1 - len(kernel)))
    return kernels.flatten(-3 - len(kernel), -2 - len(kernel)), weights.bias_under(noise)


def convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    groups: int,
    stride: Sizes,
    padding: str | Sizes,
    dilation: Sizes,
) -> Tensor:
    """Apply `torch.nn.functional.conv1d`, `conv2d` or `conv3d`, with any leading dimensions."""
    forms = (functional.conv1d, functional.conv2d, functional.conv3d)
    flat = with_one_batch_dimension(input, weight.ndim - 2)
    output = forms[_spatial(weight) - 1](flat, weight, bias, stride, padding, dilation, groups)
    return _with_leading_of(input, flat, output)


def convolve_transposed(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    groups: int,
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    dilation: Sizes,
) -> Tensor:
    """Apply `torch.nn.functional.conv_transpose1d`, `2d` or `3d`, with any leading dimensions."""
    forms = (
        functional.conv_transpose1d,
        functional.conv_transpose2d,
        functional.conv_transpose3d,
    )
    flat = with_one_batch_dimension(input, weight.ndim - 2)
    output = forms[_spatial(weight) - 1](
        flat, weight, bias, stride, padding, output_padding, groups, dilation
    )
    return _with_leading_of(input, flat, output)


def _spatial(weight: Tensor) -> int:
    spatial = weight.ndim - 2
    if spatial not in (1, 2, 3):
        raise ValueError(f"weight: got {weight.ndim} dimensions, expected 3 (1d), 4 (2d) or 5 (3d)")
    return spatial


def _with_leading_of(input: Tensor, flat: Tensor, output: Tensor) -> Tensor:
    """Give an output of the flattened input the leading dimensions of the input."""
    if flat is input:
        return output
    return output.reshape(*input.shape[: input.ndim - flat.ndim + 1], *output.shape[1:])


def with_one_batch_dimension(input: Tensor, spatial: int) -> Tensor:
    """Flatten the leading dimensions of (…, channels, *spatial) into one, where there are more."""
    if input.ndim <= 2 + spatial:
        return input
    leading = math.prod(input.shape[: input.ndim - 1 - spatial])
    return input.reshape(leading, *input.shape[-1 - spatial :])
