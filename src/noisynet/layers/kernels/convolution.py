"""Noisy convolutions as pure functions of (input, μ, σ, noise), in one and two dimensions.

A kernel (q, c, *K) is read as the q × p matrix it is: each output position applies it to a patch of
p = c · |K| values, so p is the fan-in, and σ0/√p keeps its meaning. Factorised noise has one f(ε_i)
for each input channel of the group and kernel position, and one f(ε_j) for each output channel. A
grouped convolution is `groups` layers side by side, each with an ε_i of its own. The paper
(arXiv 1706.10295) defines the noise for linear layers; this is eq. 9 for every patch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ..functional import check_rows_of_input
from ..noise import FactorisedNoise, WeightNoise

Sizes = int | tuple[int, ...]


def noisy_conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: WeightNoise,
    *,
    stride: Sizes = 1,
    padding: str | Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """Apply a noisy convolution, in one or two dimensions as the weight has.

    Shapes: input (…, c · groups, *spatial) for a shared draw, (…, rows, c · groups, *spatial) for
    one draw per row; weight and weight_sigma (q, c, *kernel); bias and bias_sigma (q,), both or
    neither; returns (…, q, *positions). Raises ValueError where the input's channels or rows, or
    the noise's groups, do not fit.

    A draw per row costs a kernel for each row in memory, and a grouped convolution in place of a
    plain one, which is slower.
    """
    spatial = weight.ndim - 2
    check_channels(input, weight.shape[1] * groups, spatial)
    check_rows_of_input(input, noise.rows, features=1 + spatial)
    if isinstance(noise, FactorisedNoise) and noise.groups != groups:
        raise ValueError(f"noise: got {noise.groups} groups, expected {groups}")
    where = {"stride": stride, "padding": padding, "dilation": dilation}
    if noise.rows is not None and math.prod(noise.rows) == 0:
        # No row, so no draw: there is nothing to compute but the shape.
        return convolve(input, weight, bias, **where, groups=groups)
    kernels, biases = noisy_kernels(weight, bias, weight_sigma, bias_sigma, noise)
    if noise.rows is None:
        return convolve(input, kernels, biases, **where, groups=groups)
    # Rows side by side, as the groups of one convolution: (…, rows · groups · c, *spatial).
    rows = math.prod(noise.rows)
    leading = input.shape[: input.ndim - 1 - spatial]
    outer = leading[: len(leading) - len(noise.rows)]
    output = convolve(
        input.reshape(*outer, rows * input.shape[-1 - spatial], *input.shape[-spatial:]),
        kernels.reshape(-1, *weight.shape[1:]),
        None if biases is None else biases.reshape(-1),
        **where,
        groups=rows * groups,
    )
    return output.reshape(*leading, weight.shape[0], *output.shape[-spatial:])


def noisy_kernels(
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: WeightNoise,
) -> tuple[Tensor, Tensor | None]:
    """Build μ + σ ⊙ ε for a kernel (…, q, c, *K) and its bias (…, q); the bias is None without one.

    The q × p matrix of factorised noise is never made, and the backward keeps its factors alone.
    """
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
    if bias is None or bias_sigma is None:
        return kernels, None
    bias_noise = noise.bias_noise()
    assert bias_noise is not None, "a layer with bias draws noise for it"
    return kernels, torch.addcmul(bias, bias_sigma, bias_noise)


def convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: Sizes,
    padding: str | Sizes,
    dilation: Sizes,
    groups: int,
) -> Tensor:
    """Apply `torch.nn.functional.conv1d` or `conv2d` to any number of leading dimensions."""
    spatial = weight.ndim - 2
    if spatial not in (1, 2):
        raise ValueError(f"weight: got {weight.ndim} dimensions, expected 3 (1d) or 4 (2d)")
    apply = functional.conv1d if spatial == 1 else functional.conv2d
    flat = with_one_batch_dimension(input, spatial)
    output = apply(flat, weight, bias, stride, padding, dilation, groups)
    if flat is input:
        return output
    return output.reshape(*input.shape[: input.ndim - 1 - spatial], *output.shape[1:])


def with_one_batch_dimension(input: Tensor, spatial: int) -> Tensor:
    """Flatten the leading dimensions of (…, channels, *spatial) into one, where there are more."""
    if input.ndim <= 2 + spatial:
        return input
    leading = math.prod(input.shape[: input.ndim - 1 - spatial])
    return input.reshape(leading, *input.shape[-1 - spatial :])


def check_channels(input: Tensor, channels: int, spatial: int) -> None:
    """Raise ValueError unless the input is (…, channels, *spatial)."""
    if input.ndim <= spatial or input.shape[-1 - spatial] != channels:
        places = "length" if spatial == 1 else "height, width"
        raise ValueError(
            f"input: got shape {tuple(input.shape)}, expected (…, {channels}, {places}): "
            f"{channels} channels"
        )
