"""Noisy convolutions: against loops in float64, by hand, in all states, copies and dtypes."""

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
    NoisyConv1d,
    NoisyConv2d,
    WeightNoise,
    noisy_conv,
)
from noisynet.layers.noise import NoiseName, NoiseSpec

from .references import assert_same, noise_of_bias, noise_of_weight


def noisy_conv_by_loops(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: WeightNoise,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """Equation 9 of the paper for every patch of the input, one output value at a time."""
    spatial = weight.ndim - 2
    outputs, channels, *kernel = weight.shape
    leading = input.shape[: input.ndim - 1 - spatial]
    rows = None if noise.rows is None else noise.rows[0]
    padded = nn.functional.pad(input, [padding, padding] * spatial).double()
    padded = padded.reshape(-1, *padded.shape[len(leading) :])
    positions = [
        range((size - dilation * (k - 1) - 1) // stride + 1)
        for size, k in zip(padded.shape[2:], kernel, strict=True)
    ]
    values = []
    for number, image in enumerate(padded):
        row = None if rows is None else number % rows
        for o in range(outputs):
            group = o // (outputs // groups)
            for position in itertools.product(*positions):
                y = torch.zeros((), dtype=torch.float64)
                if bias is not None and bias_sigma is not None:
                    y = bias[o] + bias_sigma[o] * noise_of_bias(noise, row, o)
                for c in range(channels):
                    for k, offset in enumerate(itertools.product(*map(range, kernel))):
                        place = (o, c, *offset)
                        x = image[group * channels + c][
                            tuple(
                                at * stride + by * dilation
                                for at, by in zip(position, offset, strict=True)
                            )
                        ]
                        epsilon = noise_of_weight(noise, row, o, c * math.prod(kernel) + k, group)
                        y = y + (weight[place] + weight_sigma[place] * epsilon) * x
                values.append(y)
    return torch.stack(values).reshape(*leading, outputs, *map(len, positions))


def arguments(
    shape: tuple[int, ...], groups: int, leading: tuple[int, ...], size: int, bias: bool
) -> list[Any]:
    """Input, weight, bias and the two σ in float64, for a weight of this shape."""
    input = (*leading, shape[1] * groups, *(size + n for n in range(len(shape) - 2)))
    shapes = (input, shape, shape[:1] if bias else None)
    shapes = (*shapes, *shapes[1:])
    return [None if of is None else torch.randn(of, dtype=torch.float64) for of in shapes]


def draw_noise(
    kind: Any, shape: tuple[int, ...], groups: int, rows: int | None, bias: bool
) -> WeightNoise:
    spec = NoiseSpec(kind, math.prod(shape[1:]), shape[0], bias, groups)
    leading = () if rows is None else (rows,)
    return spec.unflatten(spec.draw(leading, device=torch.device("cpu"), dtype=torch.float64))


@hypothesis.settings(derandomize=True, max_examples=40)
@hypothesis.given(
    kind=strategies.sampled_from(["factorised", "independent"]),
    spatial=strategies.integers(1, 2),
    channels=strategies.integers(1, 2),
    outputs=strategies.integers(1, 2),
    groups=strategies.integers(1, 2),
    kernel=strategies.integers(1, 2),
    stride=strategies.integers(1, 2),
    padding=strategies.integers(0, 1),
    dilation=strategies.integers(1, 2),
    rows=strategies.none() | strategies.integers(1, 2),
    outer=strategies.lists(strategies.integers(1, 2), max_size=1),
    bias=strategies.booleans(),
)
def test_forward_and_all_gradients_are_those_of_equation_9(
    kind: NoiseName,
    spatial: int,
    channels: int,
    outputs: int,
    groups: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    rows: int | None,
    outer: list[int],
    bias: bool,
) -> None:
    shape = (outputs * groups, channels, *(kernel + n for n in range(spatial)))
    leading = (*outer, *(() if rows is None else (rows,)))
    tensors = arguments(shape, groups, leading, 3 if spatial == 2 else 5, bias)
    size = tensors[0].shape[-spatial:]
    hypothesis.assume(
        all(n + 2 * padding > dilation * (k - 1) for n, k in zip(size, shape[2:], strict=True))
    )
    noise = draw_noise(kind, shape, groups, rows, bias)
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    assert_same(noisy_conv, noisy_conv_by_loops, tensors, noise, **how)


@pytest.mark.parametrize("groups", [1, 2])
def test_the_backward_keeps_the_factors_and_no_noise_of_the_kernels_size(groups: int) -> None:
    shape = (8, 4, 3, 3)
    tensors = [t.requires_grad_() for t in arguments(shape, groups, (2,), 5, True)]
    drawn = draw_noise("factorised", shape, groups, None, True)
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        apply: Any = noisy_conv
        apply(*tensors, drawn, groups=groups)
    for tensor in tensors:
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    # One kernel, which the convolution itself keeps; beside it the draw, whose parts share memory.
    assert sorted(kept.values())[-1] == math.prod(shape)
    assert len(kept) == 2


def test_a_convolution_by_hand() -> None:
    # f(ε_i) = (2, −3) for the two kernel places, f(ε_j) = (1, −4) for the two output channels:
    # ε_w = ((2, −3), (−8, 12)), as in a linear layer of two by two.
    noise = FactorisedNoise(torch.tensor([2.0, -3.0]), torch.tensor([1.0, -4.0]))
    y = noisy_conv(
        torch.tensor([[1.0, 2.0, 0.0]]),
        torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]),
        torch.tensor([0.5, -0.5]),
        torch.tensor([[[0.1, 0.2]], [[0.3, 0.4]]]),
        torch.tensor([0.1, 0.2]),
        noise,
    )
    # Kernels (1.2, 1.4) and (0.6, 8.8), biases 0.6 and −1.3, patches (1, 2) and (2, 0).
    torch.testing.assert_close(y, torch.tensor([[4.6, 3.0], [16.9, -0.1]]))


def test_groups_by_hand() -> None:
    # Two groups of one channel and one output, each with an ε_i of its own: 2 and −3.
    noise = FactorisedNoise(torch.tensor([2.0, -3.0]), torch.tensor([1.0, -4.0]), 2)
    sigma = torch.tensor([[[0.5]], [[0.25]]])
    y = noisy_conv(torch.ones(2, 1), torch.zeros(2, 1, 1), None, sigma, None, noise, groups=2)
    torch.testing.assert_close(y, torch.tensor([[1.0], [3.0]]))


def layer_1d(noise: NoiseName, **options: Any) -> NoisyConv1d:
    return NoisyConv1d(4, 6, 3, stride=2, padding=1, groups=2, noise=noise, **options)


def layer_2d(noise: NoiseName, **options: Any) -> Any:
    return NoisyConv2d(4, 6, (3, 2), padding=1, noise=noise, **options)


def images(layer: nn.Module, *leading: int, dtype: torch.dtype | None = None) -> Tensor:
    size = (7,) if isinstance(layer, nn.Conv1d) else (5, 4)
    return torch.randn(*leading, 4, *size, dtype=dtype)


def test_moments_and_rank_of_the_noise(noise: NoiseName) -> None:
    layer = NoisyConv2d(4, 6, 3, groups=2, noise=noise)
    rows = 4000
    drawn: Any = noisynet.draw(layer, rows=rows).layer("")
    epsilon = drawn.weight_noise()
    assert epsilon.shape == (rows, 6, 18)
    # The variance of ε² is 2 for a normal, and 1 − (2/π)² < 2 for factorised noise. The elements
    # of a row depend on each other: five standard errors of `rows` values, 5 · √(2/4000) ≈ 0.11.
    expected = 2 / math.pi if noise == "factorised" else 1.0
    assert float(epsilon.square().mean()) == pytest.approx(expected, abs=0.11)
    assert float(epsilon.mean()) == pytest.approx(0.0, abs=0.11)
    # Products rounded to float32 have rank one up to 2⁻²⁴.
    one = epsilon[0]
    ranks = [int(torch.linalg.matrix_rank(group, rtol=1e-5)) for group in one.chunk(2)]
    # Each group is rank one; the groups share no ε_i, so that both together have rank two.
    assert ranks == ([1, 1] if noise == "factorised" else [3, 3])
    assert int(torch.linalg.matrix_rank(one, rtol=1e-5)) == (2 if noise == "factorised" else 6)


def test_fresh_noise_per_row_has_the_variance_of_the_weights(noise: NoiseName) -> None:
    # With μ = 0 and σ = 1 an output is ε · patch. For a patch of ones its variance is the sum of
    # all E ε_i ε_k: p for both kinds, times 2/π for factorised noise. And positions share a draw.
    layer = NoisyConv1d(2, 3, 2, bias=False, noise=noise)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight_sigma.fill_(1.0)
    noisynet.release(layer, per_row=True)
    output = layer(torch.ones(4000, 2, 3)).detach()
    torch.testing.assert_close(output[..., 0], output[..., 1])
    expected = 4 * (2 / math.pi if noise == "factorised" else 1.0)
    # Five standard errors of 4000 squares whose standard deviation is at most three times the mean.
    assert float(output.square().mean()) == pytest.approx(expected, rel=5 * 3 / math.sqrt(4000))


@pytest.mark.parametrize("rows", [None, 3])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [1, "same", "valid"])
def test_padding_is_that_of_torch(
    noise: NoiseName, mode: Any, padding: str | int, rows: int | None
) -> None:
    for kind, size in ((NoisyConv1d, (6,)), (NoisyConv2d, (6, 5))):
        layer: Any = kind(2, 3, 3, padding=padding, padding_mode=mode, noise=noise)
        plain_kind = nn.Conv1d if kind is NoisyConv1d else nn.Conv2d
        plain = plain_kind(2, 3, 3, padding=padding, padding_mode=mode)
        noisynet.hold(layer, rows=rows)
        x = torch.randn(2, 3, 2, *size)
        y = layer(x)
        weight, bias = layer.effective_weight()
        for row in range(3):
            own = (weight, bias) if rows is None else (weight[row], bias[row])
            values = {"weight": own[0], "bias": own[1]}
            expected = torch.func.functional_call(plain, values, (x[:, row],))
            torch.testing.assert_close(y[:, row], expected)
        with noisynet.mean_weights(layer):
            values = {"weight": layer.weight, "bias": layer.bias}
            expected = torch.func.functional_call(plain, values, (x[0],))
            assert torch.equal(layer(x[0]), expected)


def test_channels_last_is_the_same(noise: NoiseName) -> None:
    layer = layer_2d(noise)
    for rows in (None, 3):
        noisynet.hold(layer, rows=rows)
        x = images(layer, 3)
        expected = layer(x)
        layer.to(memory_format=torch.channels_last)
        got = layer(x.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(got, expected)
        layer.to(memory_format=torch.contiguous_format)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("of_weight", [False, True])
@pytest.mark.parametrize("of_input", [False, True])
def test_the_layout_of_the_output_is_that_of_torch(
    noise: NoiseName, channels: int, of_weight: bool, of_input: bool
) -> None:
    plain: Any = nn.Conv2d(channels, 6, 3)
    x = torch.randn(5, channels, 7, 6)
    if of_weight:
        plain.to(memory_format=torch.channels_last)
    if of_input:
        x = x.to(memory_format=torch.channels_last)
    layer = NoisyConv2d.from_conv(plain, noise=noise)
    expected = plain(x).stride()
    noisynet.hold(layer, rows=5)
    assert layer(x).stride() == expected
    noisynet.release(layer, per_row=True)
    assert layer(x).stride() == expected


def test_errors_name_what_came_and_what_fits(noise: NoiseName) -> None:
    two = layer_2d(noise)
    for context in (noisynet.mean_weights(two), torch.no_grad()):
        with (
            context,
            pytest.raises(ValueError, match=r"\(2, 3, 5, 5\), expected \(…, 4, height, width\)"),
        ):
            two(torch.randn(2, 3, 5, 5))
    one = layer_1d(noise)
    with pytest.raises(ValueError, match=r"got shape \(7,\), expected \(…, 4, length\): 4 channe"):
        one(torch.randn(7))
    noisynet.hold(one, rows=3)
    with pytest.raises(ValueError, match=r"got shape \(2, 4, 7\), expected \(…, 3, 4, 7\)"):
        one(torch.randn(2, 4, 7))
    with pytest.raises(ValueError, match=r"got shape \(4, 7\), expected \(…, 3, 4, 7\)"):
        one(torch.randn(4, 7))
    for kind in (NoisyConv1d, NoisyConv2d):
        with pytest.raises(ValueError, match="in_channels: got 0, expected at least 1"):
            kind(0, 2, 1, noise=noise)
        with pytest.raises(ValueError, match="kernel_size: got 0, expected at least 1"):
            kind(2, 2, 0, noise=noise)
    drawn = draw_noise("factorised", (2, 1, 1), 2, None, False)
    with pytest.raises(ValueError, match="noise: got 2 groups, expected 1"):
        noisy_conv(torch.ones(1, 1), torch.ones(2, 1, 1), None, torch.ones(2, 1, 1), None, drawn)
    weight = torch.ones(2, 1, 1, 1, 1, 1)
    with pytest.raises(
        ValueError, match=r"weight: got 6 dimensions, expected 3 \(1d\), 4 \(2d\) or 5"
    ):
        noisy_conv(
            torch.ones(1, 1, 1, 1, 1),
            weight,
            None,
            weight,
            None,
            draw_noise(noise, (2, 1, 1, 1, 1, 1), 1, None, False),
        )
