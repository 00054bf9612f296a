"""Noisy transposed convolutions, and convolutions over three dimensions."""

from __future__ import annotations

import itertools
import math
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies
from torch import Tensor, nn

import noisynet
from noisynet.layers import (
    FactorisedNoise,
    NoisyConv3d,
    NoisyConvTranspose1d,
    NoisyConvTranspose2d,
    NoisyConvTranspose3d,
    noisy_conv_transpose,
)
from noisynet.layers.noise import NoiseName, NoiseSpec

from .references import assert_same, noise_of_bias, noise_of_weight


def transposed_by_loops(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: Any,
    *,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """Each input value times each element of its noisy kernel, added where it falls."""
    kernel = weight.shape[2:]
    spatial = len(kernel)
    per_group, outputs = weight.shape[0] // groups, weight.shape[1]
    leading = input.shape[: input.ndim - 1 - spatial]
    rows = None if noise.rows is None else noise.rows[0]
    sizes = [
        (n - 1) * stride - 2 * padding + dilation * (k - 1) + output_padding + 1
        for n, k in zip(input.shape[-spatial:], kernel, strict=True)
    ]
    images = []
    for number, image in enumerate(input.reshape(-1, *input.shape[len(leading) :])):
        row = None if rows is None else number % rows
        sums: dict[tuple[int, ...], Tensor] = {}
        for o, place in itertools.product(
            range(outputs * groups), itertools.product(*map(range, sizes))
        ):
            start = torch.zeros((), dtype=torch.float64)
            if bias is not None and bias_sigma is not None:
                start = bias[o] + bias_sigma[o] * noise_of_bias(noise, row, o)
            sums[o, *place] = start
        for c, at in itertools.product(
            range(weight.shape[0]), itertools.product(*map(range, image.shape[1:]))
        ):
            group = c // per_group
            for o, (k, by) in itertools.product(
                range(outputs), enumerate(itertools.product(*map(range, kernel)))
            ):
                place = tuple(
                    a * stride - padding + b * dilation for a, b in zip(at, by, strict=True)
                )
                out = group * outputs + o
                if (out, *place) not in sums:
                    continue
                i = (c % per_group) * math.prod(kernel) + k
                epsilon = noise_of_weight(noise, row, out, i, group)
                element = weight[c, o][by] + weight_sigma[c, o][by] * epsilon
                sums[out, *place] = sums[out, *place] + element * image[c][at]
        images.append(torch.stack(list(sums.values())).reshape(outputs * groups, *sizes))
    return torch.stack(images).reshape(*leading, outputs * groups, *sizes)


@hypothesis.settings(derandomize=True, max_examples=25)
@hypothesis.given(
    kind=strategies.sampled_from(["factorised", "independent"]),
    spatial=strategies.integers(1, 2),
    channels=strategies.integers(1, 2),
    outputs=strategies.integers(1, 2),
    groups=strategies.integers(1, 2),
    stride=strategies.integers(1, 2),
    padding=strategies.integers(0, 1),
    dilation=strategies.integers(1, 2),
    rows=strategies.none() | strategies.integers(1, 2),
    bias=strategies.booleans(),
)
def test_forward_and_all_gradients_are_those_of_the_loops(
    kind: Any,
    spatial: int,
    channels: int,
    outputs: int,
    groups: int,
    stride: int,
    padding: int,
    dilation: int,
    rows: int | None,
    bias: bool,
) -> None:
    kernel = (2, 1)[:spatial] if spatial == 2 else (3,)
    shape = (channels * groups, outputs, *kernel)
    out = outputs * groups
    size = (3, 2)[:spatial] if spatial == 2 else (4,)
    if spatial == 2:
        padding = 0  # a kernel of one leaves nothing to cut off
    leading = (2,) if rows is None else (2, rows)
    of_bias = (out,) if bias else None
    shapes = ((*leading, channels * groups, *size), shape, of_bias, shape, of_bias)
    tensors = [None if of is None else torch.randn(of, dtype=torch.float64) for of in shapes]
    spec = NoiseSpec(kind, channels * math.prod(kernel), out, bias, groups)
    drawn = spec.draw(
        () if rows is None else (rows,), device=torch.device("cpu"), dtype=torch.float64
    )
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    how["output_padding"] = stride - 1
    noise = spec.unflatten(drawn)
    assert_same(noisy_conv_transpose, transposed_by_loops, tensors, noise, **how)


def test_a_transposed_convolution_by_hand() -> None:
    # One input channel, two outputs, a kernel of two: f(ε_i) = (2, −3), f(ε_j) = (1, −4), so
    # ε_w = ((2, −3), (−8, 12)).
    noise = FactorisedNoise(torch.tensor([2.0, -3.0]), torch.tensor([1.0, -4.0]))
    y = noisy_conv_transpose(
        torch.tensor([[1.0, 10.0]]),
        torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]),
        torch.tensor([0.5, -0.5]),
        torch.tensor([[[0.1, 0.2], [0.3, 0.4]]]),
        torch.tensor([0.1, 0.2]),
        noise,
    )
    # Kernels (1.2, 1.4) and (0.6, 8.8), biases 0.6 and −1.3.
    torch.testing.assert_close(y, torch.tensor([[1.8, 14.0, 14.6], [-0.7, 13.5, 86.7]]))


@pytest.mark.parametrize("rows", [None, 3])
def test_an_output_size_is_that_of_torch(noise: NoiseName, rows: int | None) -> None:
    layer = NoisyConvTranspose2d(2, 3, 2, stride=3, noise=noise)
    plain = nn.ConvTranspose2d(2, 3, 2, stride=3)
    plain.load_state_dict(layer.state_dict(), strict=False)
    x = torch.randn(3, 2, 4, 4)
    noisynet.hold(layer, rows=rows)
    assert layer(x, output_size=[12, 13]).shape == (3, 3, 12, 13)
    with noisynet.mean_weights(layer):
        expected = plain(x, output_size=[12, 13])
        assert torch.equal(layer(x, output_size=[12, 13]), expected)
    with pytest.raises(ValueError, match="requested an output size"):
        layer(x, output_size=[20, 20])


@pytest.mark.parametrize(
    ("kind", "places"),
    [
        (NoisyConv3d, "depth, height, width"),
        (NoisyConvTranspose1d, "length"),
        (NoisyConvTranspose2d, "height, width"),
        (NoisyConvTranspose3d, "depth, height, width"),
    ],
)
def test_errors_name_what_was_given_and_what_fits(kind: Any, places: str) -> None:
    with pytest.raises(ValueError, match=rf"expected \(…, 4, {places}\): 4 channels"):
        kind(4, 6, 1)(torch.randn(2, 3, *[5] * (1 + places.count(","))))
    with pytest.raises(ValueError, match="kernel_size: got 0, expected at least 1"):
        kind(4, 4, 0)
