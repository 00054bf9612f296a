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
    IndependentNoise,
    NoisyConv3d,
    NoisyConvTranspose1d,
    NoisyConvTranspose2d,
    NoisyConvTranspose3d,
    WeightNoise,
    noisy_conv_transpose,
)
from noisynet.layers.noise import NoiseSpec

PLAIN: dict[type, type] = {
    NoisyConv3d: nn.Conv3d,
    NoisyConvTranspose1d: nn.ConvTranspose1d,
    NoisyConvTranspose2d: nn.ConvTranspose2d,
    NoisyConvTranspose3d: nn.ConvTranspose3d,
}


def noise_of_element(noise: WeightNoise, row: int | None, o: int, i: int, group: int) -> Tensor:
    """ε of output channel o and input i of its group, one scalar at a time."""
    if isinstance(noise, IndependentNoise):
        return noise.weight[o, i] if row is None else noise.weight[row, o, i]
    inputs = noise.input.shape[-1] // noise.groups
    input = noise.input if row is None else noise.input[row]
    output = noise.output if row is None else noise.output[row]
    return output[o] * input[group * inputs + i]


def transposed_by_loops(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: WeightNoise,
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
                drawn = noise.bias_noise()
                start = bias[o] + bias_sigma[o] * (drawn[o] if row is None else drawn[row, o])
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
                epsilon = noise_of_element(noise, row, out, i, group)
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
    results = []
    for function in (noisy_conv_transpose, transposed_by_loops):
        leaves = [None if t is None else t.clone().requires_grad_() for t in tensors]
        output = function(*leaves, spec.unflatten(drawn), **how)
        if not results:
            cotangent = torch.randn_like(output)
        wanted = [leaf for leaf in leaves if leaf is not None]
        results.append([output, *torch.autograd.grad((output * cotangent).sum(), wanted)])
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)


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


def layer_of(kind: Any, noise: str, **options: Any) -> Any:
    return kind(4, 6, (3, 2, 2)[: sizes_of(kind)], stride=2, groups=2, noise=noise, **options)


def sizes_of(kind: Any) -> int:
    return int(kind.__name__[-2])


@pytest.fixture(params=list(PLAIN), ids=lambda kind: kind.__name__)
def layer(request: pytest.FixtureRequest, noise: str) -> Any:
    return layer_of(request.param, noise)


def images(layer: Any, *leading: int) -> Tensor:
    return torch.randn(*leading, 4, *(5, 4, 3)[: sizes_of(type(layer))])


def plain_of(layer: Any) -> nn.Module:
    kind = PLAIN[type(layer)]
    return kind(4, 6, (3, 2, 2)[: sizes_of(kind)], stride=2, groups=2)


def test_it_is_a_layer_of_torch(layer: Any, noise: str) -> None:
    plain = plain_of(layer)
    assert isinstance(layer, type(plain))
    result = layer.load_state_dict(plain.state_dict(), strict=False)
    assert result.missing_keys == ["weight_sigma", "bias_sigma"]
    x = images(layer, 3)
    with noisynet.mean_weights(layer):
        assert torch.equal(layer(x), plain(x))
    noisynet.hold(layer)
    weight, bias = layer.effective_weight()
    made = {"weight": weight, "bias": bias}
    torch.testing.assert_close(layer(x), torch.func.functional_call(plain, made, (x,)))
    torch.testing.assert_close(layer(x[0]), layer(x)[0])
    torch.testing.assert_close(layer(x.unsqueeze(0)), layer(x).unsqueeze(0))
    assert f"noise={noise!r} (held)" in repr(layer)
    assert layer.noise_spec().inputs == 2 * math.prod(layer.kernel_size)
    scale = 0.5 / math.sqrt(layer.noise_spec().inputs) if noise == "factorised" else 0.017
    torch.testing.assert_close(layer.weight_sigma, torch.full_like(layer.weight_sigma, scale))


@pytest.mark.parametrize("outer", [(), (2,), (0,)])
def test_row_i_uses_draw_i_always(layer: Any, outer: tuple[int, ...]) -> None:
    noisynet.hold(layer, rows=3)
    drawn = noisynet.held(layer)
    x = images(layer, *outer, 3)
    together = layer(x)
    for row in range(3):
        with noisynet.using(layer, drawn[row]):
            torch.testing.assert_close(
                together.select(len(outer), row), layer(x.select(len(outer), row))
            )
    assert layer.effective_weight()[0].shape == (3, *layer.weight.shape)
    with pytest.raises(ValueError, match="one draw for each of 3 rows"):
        layer(images(layer, 2))


def test_fresh_rows_differ_and_a_shared_draw_does_not(layer: Any) -> None:
    alike = images(layer).expand(3, *images(layer).shape)
    output = layer(alike)
    torch.testing.assert_close(output, output[:1].expand_as(output))
    noisynet.release(layer, per_row=True)
    assert len({tuple(row.flatten().tolist()) for row in layer(alike)}) == 3


def test_first_and_second_derivatives_pass_the_numerical_check(noise: str) -> None:
    layer = NoisyConvTranspose1d(2, 2, 2, groups=2, noise=noise, dtype=torch.float64)
    noisynet.hold(layer, rows=2)
    names = [name for name, _ in layer.named_parameters()]

    def apply(x: Tensor, *values: Tensor) -> Tensor:
        parameters = dict(zip(names, values, strict=True))
        return torch.func.functional_call(layer, parameters, (x,)).square()

    x = torch.randn(2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(apply, (x, *layer.parameters()))
    assert torch.autograd.gradgradcheck(apply, (x, *layer.parameters()))


@pytest.mark.parametrize("rows", [None, 3])
def test_an_output_size_is_that_of_torch(noise: str, rows: int | None) -> None:
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


@pytest.mark.parametrize("rows", [None, 3])
def test_bfloat16_autocast_is_close_to_float32(layer: Any, rows: int | None) -> None:
    noisynet.hold(layer, rows=rows)
    x = images(layer, 3)
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        fast = layer(x)
    fast.float().square().sum().backward()
    error = float((fast.float() - exact).detach().norm() / exact.detach().norm())
    assert error < 4 * 2.0**-8
    assert {parameter.grad.dtype for parameter in layer.parameters()} == {torch.float32}


def test_errors_name_what_came_and_what_fits(layer: Any) -> None:
    spatial = sizes_of(type(layer))
    places = {1: "length", 2: "height, width", 3: "depth, height, width"}[spatial]
    with pytest.raises(ValueError, match=rf"expected \(…, 4, {places}\): 4 channels"):
        layer(torch.randn(2, 3, *[5] * spatial))
    kind = type(layer)
    with pytest.raises(ValueError, match="kernel_size: got 0, expected at least 1"):
        kind(4, 4, 0)
    with pytest.raises(ValueError, match="noise: got 'pink', expected one of"):
        kind(4, 4, 1, noise="pink")
