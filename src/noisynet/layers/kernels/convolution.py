"""A noisy convolution: one kernel for the batch, or one for each row, as groups side by side."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ..noise import FactorisedNoise, WeightNoise
from ..weights import Weights

Sizes = int | tuple[int, ...]


def apply(
    input: Tensor,
    weights: Weights,
    noise: WeightNoise,
    stride: Sizes,
    padding: str | Sizes,
    dilation: Sizes,
    groups: int,
) -> Tensor:
    """Apply μ + σ ⊙ ε to an input (…, channels, *spatial) that fits weights and noise."""
    rows = noise.rows
    if rows is not None and math.prod(rows) == 0:
        # No row, so no draw: there is nothing to compute but the shape.
        return convolve(input, weights.weight, weights.bias, stride, padding, dilation, groups)
    kernels, biases = noisy_kernels(weights, noise)
    if rows is None:
        return convolve(input, kernels, biases, stride, padding, dilation, groups)
    # Rows side by side, as the groups of one convolution: (…, rows · groups · c, *spatial).
    spatial, count = weights.weight.ndim - 2, math.prod(rows)
    leading = input.shape[: input.ndim - 1 - spatial]
    outer = leading[: len(leading) - len(rows)]
    output = convolve(
        input.reshape(*outer, count * input.shape[-1 - spatial], *input.shape[-spatial:]),
        kernels.reshape(-1, *weights.weight.shape[1:]),
        None if biases is None else biases.reshape(-1),
        stride,
        padding,
        dilation,
        count * groups,
    )
    output = output.reshape(*leading, weights.weight.shape[0], *output.shape[-spatial:])
    if output.ndim != 4 or spatial != 2:
        return output
    # As nn.Conv2d lays it out, which saw no groups in place of rows.
    by_channels = is_channels_last(input) or is_channels_last(weights.weight)
    layout = torch.channels_last if by_channels else torch.contiguous_format
    return output.contiguous(memory_format=layout)


def is_channels_last(images: Tensor) -> bool:
    """Return whether four dimensions (rows, channels, height, width) lie with channels last."""
    by_channels = images.is_contiguous(memory_format=torch.channels_last)
    return by_channels and images.stride(1) == 1 and images.shape[-2:].numel() > 1


def noisy_kernels(weights: Weights, noise: WeightNoise) -> tuple[Tensor, Tensor | None]:
    """Return μ + σ ⊙ ε of a kernel (…, q, c, *K) and its bias (…, q); the bias may be None.

    The q × p matrix of factorised noise is never made, and the backward keeps its factors alone.
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


def convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: str | Sizes,
    dilation: Sizes,
    groups: int,
) -> Tensor:
    """Apply `torch.nn.functional.conv1d` or `conv2d` to any number of leading dimensions."""
    spatial = weight.ndim - 2
    if spatial not in (1, 2):
        raise ValueError(f"weight: got {weight.ndim} dimensions, expected 3 (1d) or 4 (2d)")
    conv = functional.conv1d if spatial == 1 else functional.conv2d
    flat = with_one_batch_dimension(input, spatial)
    output = conv(flat, weight, bias, stride, padding, dilation, groups)
    if flat is input:
        return output
    return output.reshape(*input.shape[: input.ndim - 1 - spatial], *output.shape[1:])


def with_one_batch_dimension(input: Tensor, spatial: int) -> Tensor:
    """Flatten the leading dimensions of (…, channels, *spatial) into one, where there are more."""
    if input.ndim <= 2 + spatial:
        return input
    leading = math.prod(input.shape[: input.ndim - 1 - spatial])
    return input.reshape(leading, *input.shape[-1 - spatial :])
