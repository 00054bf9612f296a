"""Noisy layers as pure functions of (input, μ, σ, noise).

Everything follows arXiv 1706.10295, §3: y = (μ_w + σ_w ⊙ ε_w) x + μ_b + σ_b ⊙ ε_b (eq. 9), which
`noisy_linear` computes directly unless an equivalent form in `kernels` is cheaper. The functions
keep no state: a backward uses the noise of its forward, whatever is drawn in between.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from .kernels import convolution
from .kernels.convolution import (
    Sizes,
    convolve,
    convolve_transposed,
    noisy_kernels,
    noisy_transposed_kernels,
)
from .kernels.dispatch import fast_form
from .noise import FactorisedNoise, LinearNoise, OutputNoise, WeightNoise
from .weights import Weights


def noisy_linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: LinearNoise,
) -> Tensor:
    """Apply a noisy linear layer (eq. 9).

    Shapes: input (…, p) for a shared draw, (…, rows, p) for one draw per row, (rows, …, p) for one
    draw per row with the batch first; weight and weight_sigma (q, p); bias and bias_sigma (q,),
    both or neither; returns (…, q). Raises ValueError where one of the biases is missing, or the
    input's features or rows do not fit.
    """
    return apply_linear(input, _paired(weight, bias, weight_sigma, bias_sigma), noise)


def apply_linear(input: Tensor, weights: Weights, noise: LinearNoise) -> Tensor:
    """Apply a noisy linear layer as `noisy_linear` does, with μ and σ in one tuple."""
    check_features(input, weights.weight.shape[-1])
    rows = noise.rows
    if rows is not None:
        check_rows_of_input(input, rows, features=1, batch_first=noise.batch_first)
    form = fast_form(input, weights, noise)
    if form is not None:
        return form(input, weights, noise)
    assert not isinstance(noise, OutputNoise), "noise at the outputs has a form of its own"
    return reference_linear(input, weights, noise)


def reference_linear(input: Tensor, weights: Weights, noise: WeightNoise) -> Tensor:
    """Compute y = (μ_w + σ_w ⊙ ε_w) x + μ_b + σ_b ⊙ ε_b directly: the reference for fast forms."""
    noisy_weight, noisy_bias = weights.under(noise)
    if noisy_weight.ndim == 2:
        return functional.linear(input, noisy_weight, noisy_bias)
    if noise.batch_first and input.ndim > 2:
        # (rows, n, p) @ (rows, p, q) -> (rows, n, q), n vectors for each row's weights
        output = torch.matmul(input.flatten(1, -2), noisy_weight.mT)
        if noisy_bias is not None:
            output = output + noisy_bias.unsqueeze(1).to(output.dtype)
        return output.reshape(*input.shape[:-1], output.shape[-1])
    # A matrix for each row: (…, rows, 1, p) @ (rows, p, q) -> (…, rows, 1, q)
    output = torch.matmul(input.unsqueeze(-2), noisy_weight.mT).squeeze(-2)
    return output if noisy_bias is None else output + noisy_bias.to(output.dtype)


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
    """Apply a noisy convolution in one, two or three dimensions, like the weight.

    A kernel (q, c, *K) is treated as a q × p matrix: each output position applies it to a patch of
    p = c · |K| values, so p is the fan-in, and σ0/√p keeps its meaning. Factorised noise has one
    f(ε_i) for each input channel of the group and kernel position, and one f(ε_j) for each output
    channel. A grouped convolution is `groups` layers side by side, each with its own ε_i. The paper
    (arXiv 1706.10295) defines the noise for linear layers; this is eq. 9 for every patch.

    Shapes: input (…, c · groups, *spatial) for a shared draw, (…, rows, c · groups, *spatial) for
    one draw per row, (rows, …, c · groups, *spatial) for one draw per row with the batch first (the
    same if only one dimension precedes the channels); weight and weight_sigma (q, c, *kernel); bias
    and bias_sigma (q,), both or neither; returns (…, q, *positions). Raises ValueError where the
    input's channels or rows, or the noise's groups, do not fit.

    One draw per row takes memory for a kernel per row, and a grouped convolution, which is slower
    than a plain one.
    """
    weights = _paired(weight, bias, weight_sigma, bias_sigma)
    check_channels(input, weight.shape[1] * groups, weight.ndim - 2)

    def form(input: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        return convolve(input, weight, bias, groups, stride, padding, dilation)

    return _apply_conv(input, weights, noise, groups, noisy_kernels, form)


def noisy_conv_transpose(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: WeightNoise,
    *,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """Apply a noisy transposed convolution in one, two or three dimensions, like the weight.

    A kernel (c · groups, q/groups, *K) is treated as the q × p matrix of the untransposed
    convolution, where p = c · |K| is the number of terms that an output channel sums, over all
    kernel positions. The noise is that of `noisy_conv`: one f(ε_i) for each input channel of the
    group and kernel position, one f(ε_j) for each output channel.

    Shapes: input (…, c · groups, *spatial) for a shared draw, (…, rows, c · groups, *spatial) for
    one draw per row, (rows, …, c · groups, *spatial) for one draw per row with the batch first;
    weight and weight_sigma (c · groups, q/groups, *kernel); bias and bias_sigma (q,), both or
    neither; returns (…, q, *positions). Raises ValueError as `noisy_conv` does; a draw per row
    costs the same.
    """
    weights = _paired(weight, bias, weight_sigma, bias_sigma)
    check_channels(input, weight.shape[0], weight.ndim - 2)
    places = (stride, padding, output_padding, dilation)

    def form(input: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        return convolve_transposed(input, weight, bias, groups, *places)

    build = partial(noisy_transposed_kernels, groups=groups)
    return _apply_conv(input, weights, noise, groups, build, form)


def _apply_conv(
    input: Tensor,
    weights: Weights,
    noise: WeightNoise,
    groups: int,
    build: convolution.Build,
    form: convolution.Convolve,
) -> Tensor:
    """Check rows and groups, and apply a form that expects rows beside the channels."""
    spatial = weights.weight.ndim - 2
    check_rows_of_input(input, noise.rows, features=1 + spatial, batch_first=noise.batch_first)
    if isinstance(noise, FactorisedNoise) and noise.groups != groups:
        raise ValueError(f"noise: got {noise.groups} groups, expected {groups}")
    last = input.ndim - spatial - 2
    if noise.rows is None or not noise.batch_first or last < 1:
        return convolution.apply(input, weights, noise, groups, build, form)
    beside = input.movedim(0, last)
    return convolution.apply(beside, weights, noise, groups, build, form).movedim(last, 0)


def noisy_parameters(
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: WeightNoise,
) -> tuple[Tensor, Tensor | None]:
    """Return μ + σ ⊙ ε for weight (…, q, p) and bias (…, q); without a bias, the second is None."""
    return _paired(weight, bias, weight_sigma, bias_sigma).under(noise)


def _paired(
    weight: Tensor, bias: Tensor | None, weight_sigma: Tensor, bias_sigma: Tensor | None
) -> Weights:
    if (bias is None) != (bias_sigma is None):
        missing = "bias" if bias is None else "bias_sigma"
        raise ValueError(f"{missing}: got None beside the other, expected both or neither")
    return Weights(weight, bias, weight_sigma, bias_sigma)


def check_features(input: Tensor, features: int) -> None:
    """Raise ValueError unless the input is (…, features)."""
    shape = input.shape
    if not shape or shape[-1] != features:
        raise ValueError(
            f"input: got shape {tuple(shape)}, expected (…, {features}): {features} features"
        )


def check_channels(input: Tensor, channels: int, spatial: int) -> None:
    """Raise ValueError unless the input is (…, channels, *spatial)."""
    if input.ndim <= spatial or input.shape[-1 - spatial] != channels:
        places = {1: "length", 2: "height, width", 3: "depth, height, width"}.get(spatial, "…")
        raise ValueError(
            f"input: got shape {tuple(input.shape)}, expected (…, {channels}, {places}): "
            f"{channels} channels"
        )


def check_rows_of_input(
    input: Tensor, rows: tuple[int, ...] | None, *, features: int, batch_first: bool = False
) -> None:
    """Raise ValueError unless the dimensions before the last `features` ones fit the rows.

    They must end with `rows`, or begin with them if the batch comes first.
    """
    if rows is None:
        return
    leading, rest = input.shape[: input.ndim - features], input.shape[input.ndim - features :]
    found = leading[: len(rows)] if batch_first else leading[-len(rows) :]
    if found != rows:
        sizes = [", ".join(map(str, rows)), ", ".join(map(str, rest))]
        places = (sizes[0], "…", sizes[1]) if batch_first else ("…", *sizes)
        first = ", the first dimension" if batch_first else ""
        raise ValueError(
            f"input: got shape {tuple(input.shape)}, expected ({', '.join(places)}): the noise in "
            f"force is one draw for each of {sizes[0]} rows{first}"
        )
