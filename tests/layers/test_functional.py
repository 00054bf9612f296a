"""The pure functions against a slow, obvious float64 reference: forward, all gradients, dtypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import hypothesis
import pytest
import torch
from hypothesis import strategies
from torch import Tensor, nn

import noisynet
from noisynet.layers import (
    Draw,
    IndependentNoise,
    LayerNoise,
    noisy_conv,
    noisy_conv_transpose,
    noisy_linear,
    noisy_parameters,
)
from noisynet.layers.noise import NoiseKind, NoiseName, NoiseSpec, signed_sqrt

from .references import slow_noisy_linear

NAMES = ("input", "weight", "bias", "weight_sigma", "bias_sigma")
# Every combination that the functions tell apart: kind of noise, one draw or one per row, bias.
CASES = [
    pytest.param(kind, rows, bias, id=f"{kind}-{'rows' if rows else 'shared'}-{bias}")
    for kind in ("factorised", "independent")
    for rows in (None, 3)
    for bias in (True, False)
]


def arguments(
    inputs: int, outputs: int, leading: tuple[int, ...], bias: bool, dtype: torch.dtype
) -> list[Any]:
    shapes = [(*leading, inputs), (outputs, inputs), (outputs,), (outputs, inputs), (outputs,)]
    return [
        None if name.startswith("bias") and not bias else torch.randn(shape, dtype=dtype)
        for name, shape in zip(NAMES, shapes, strict=True)
    ]


def draw_noise(
    kind: NoiseKind, inputs: int, outputs: int, rows: int | None, bias: bool, dtype: torch.dtype
) -> Any:
    spec = NoiseSpec(kind, inputs, outputs, bias)
    leading = () if rows is None else (rows,)
    return spec.unflatten(spec.draw(leading, device=torch.device("cpu"), dtype=dtype))


def require_grad(tensors: list[Any]) -> list[Any]:
    return [None if t is None else t.detach().clone().requires_grad_() for t in tensors]


def gradients(
    function: Callable[..., Tensor], tensors: list[Any], noise: LayerNoise, weight: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    leaves = require_grad(tensors)
    output = function(*leaves, noise)
    wanted = [leaf for leaf in leaves if leaf is not None]
    # An empty batch makes no graph in the reference: its gradients are zeros.
    total = (output * weight).sum()
    return output, torch.autograd.grad(total, wanted, materialize_grads=True)


@hypothesis.settings(derandomize=True, max_examples=60)
@hypothesis.given(
    kind=strategies.sampled_from(["factorised", "independent"]),
    inputs=strategies.integers(1, 4),
    outputs=strategies.integers(1, 4),
    rows=strategies.none() | strategies.integers(1, 3),
    outer=strategies.lists(strategies.integers(0, 3), max_size=2),
    bias=strategies.booleans(),
)
def test_forward_and_all_gradients_are_those_of_equation_9(
    kind: NoiseKind, inputs: int, outputs: int, rows: int | None, outer: list[int], bias: bool
) -> None:
    leading = (*outer, *(() if rows is None else (rows,)))
    tensors = arguments(inputs, outputs, leading, bias, torch.float64)
    noise = draw_noise(kind, inputs, outputs, rows, bias, torch.float64)
    cotangent = torch.randn(*leading, outputs, dtype=torch.float64)

    fast, fast_gradients = gradients(noisy_linear, tensors, noise, cotangent)
    slow, slow_gradients = gradients(slow_noisy_linear, tensors, noise, cotangent)

    # Sums of at most 27 rows of 4 products of order 1: rounding stays far below 1e-12.
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)
    for fast_gradient, slow_gradient in zip(fast_gradients, slow_gradients, strict=True):
        torch.testing.assert_close(fast_gradient, slow_gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kind", "rows", "bias"), CASES)
def test_float32_is_close_to_the_float64_reference(
    kind: NoiseKind, rows: int | None, bias: bool
) -> None:
    tensors = arguments(7, 5, (2, 3), bias, torch.float32)
    noise = draw_noise(kind, 7, 5, rows, bias, torch.float32)
    cotangent = torch.randn(2, 3, 5)

    fast, fast_gradients = gradients(noisy_linear, tensors, noise, cotangent)
    slow, slow_gradients = gradients(slow_noisy_linear, tensors, noise, cotangent.double())

    # 7 products of values up to about 10: 7 · 10 · 2⁻²⁴ ≈ 4e-6.
    torch.testing.assert_close(fast.double(), slow, rtol=1e-5, atol=1e-5)
    for fast_gradient, slow_gradient in zip(fast_gradients, slow_gradients, strict=True):
        assert fast_gradient.dtype == torch.float32
        torch.testing.assert_close(fast_gradient, slow_gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "rows", "bias"), CASES)
def test_first_and_second_derivatives_pass_the_numerical_check(
    kind: NoiseKind, rows: int | None, bias: bool
) -> None:
    leaves = require_grad(arguments(3, 2, (2, 3), bias, torch.float64))
    noise = draw_noise(kind, 3, 2, rows, bias, torch.float64)
    given = [leaf for leaf in leaves if leaf is not None]

    def apply(*values: Tensor) -> Tensor:
        values_left = iter(values)
        filled = [None if leaf is None else next(values_left) for leaf in leaves]
        function: Any = noisy_linear
        return function(*filled, noise).square()

    assert torch.autograd.gradcheck(apply, given)
    assert torch.autograd.gradgradcheck(apply, given)


@pytest.mark.parametrize("frozen", range(5))
@pytest.mark.parametrize("kind", ["factorised", "independent"])
def test_gradients_stay_right_when_one_argument_is_frozen(kind: NoiseKind, frozen: int) -> None:
    tensors = arguments(3, 2, (4,), True, torch.float64)
    noise = draw_noise(kind, 3, 2, None, True, torch.float64)
    results = []
    functions: tuple[Any, ...] = (noisy_linear, slow_noisy_linear)
    for function in functions:
        leaves = require_grad(tensors)
        leaves[frozen].requires_grad_(False)
        function(*leaves, noise).square().sum().backward()
        results.append([leaf.grad for leaf in leaves])
    for number, (fast, slow) in enumerate(zip(*results, strict=True)):
        if number == frozen:
            assert fast is None
        else:
            torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)


def test_a_layer_of_two_by_two_by_hand() -> None:
    # ε_i = (4, −9) and ε_j = (1, −16) give f = (2, −3) and (1, −4), so ε_w = ((2, −3), (−8, 12)).
    layer: Any = noisynet.NoisyLinear(2, 2, dtype=torch.float64)
    double: dict[str, Any] = {"dtype": torch.float64}
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]], **double))
        layer.bias.copy_(torch.tensor([0.5, -0.5], **double))
        layer.weight_sigma.copy_(torch.tensor([[0.1, 0.2], [0.3, 0.4]], **double))
        layer.bias_sigma.copy_(torch.tensor([0.1, 0.2], **double))
    normals = torch.tensor([4.0, -9.0, 1.0, -16.0], dtype=torch.float64)
    by_hand = Draw((signed_sqrt(normals),), noisynet.draw(layer).slots)
    x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)

    with noisynet.using(layer, by_hand):
        weight, bias = layer.effective_weight()
        y = layer(x)
    y.sum().backward()

    close: dict[str, Any] = {"rtol": 1e-14, "atol": 1e-14}
    torch.testing.assert_close(weight, torch.tensor([[1.2, 1.4], [0.6, 8.8]], **double), **close)
    torch.testing.assert_close(bias, torch.tensor([0.6, -1.3], **double), **close)
    torch.testing.assert_close(y, torch.tensor([4.6, 16.9], **double), **close)
    torch.testing.assert_close(x.grad, torch.tensor([1.8, 10.2], **double), **close)
    for parameter, expected in (
        (layer.weight, [[1.0, 2.0], [1.0, 2.0]]),
        (layer.bias, [1.0, 1.0]),
        (layer.weight_sigma, [[2.0, -6.0], [-8.0, 24.0]]),
        (layer.bias_sigma, [1.0, -4.0]),
    ):
        torch.testing.assert_close(parameter.grad, torch.tensor(expected, **double), **close)


def test_independent_noise_of_two_by_two_by_hand() -> None:
    noise = IndependentNoise(torch.tensor([[1.0, -2.0], [3.0, 0.5]]), torch.tensor([2.0, -1.0]))
    y = noisy_linear(
        torch.tensor([[1.0, 2.0]]),
        torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        torch.tensor([0.5, -0.5]),
        torch.tensor([[0.1, 0.2], [0.3, 0.4]]),
        torch.tensor([0.1, 0.2]),
        noise,
    )
    # Weight ((1.1, 1.6), (3.9, 4.2)), bias (0.7, −0.7).
    torch.testing.assert_close(y, torch.tensor([[5.0, 11.6]]))


def test_signed_sqrt_by_hand() -> None:
    values = torch.tensor([4.0, -9.0, 0.0, 0.25, -0.25])
    assert signed_sqrt(values).tolist() == [2.0, -3.0, 0.0, 0.5, -0.5]
    assert values.tolist() == [4.0, -9.0, 0.0, 0.25, -0.25]


@pytest.mark.parametrize(("kind", "rows", "bias"), CASES)
def test_noisy_parameters_are_what_the_function_applies(
    kind: NoiseKind, rows: int | None, bias: bool
) -> None:
    input, *parameters = arguments(4, 5, (6, 3), bias, torch.float64)
    noise = draw_noise(kind, 4, 5, rows, bias, torch.float64)
    effective, apply = (cast(Any, one) for one in (noisy_parameters, noisy_linear))
    weight, noisy_bias = effective(*parameters, noise)

    assert weight.shape == ((5, 4) if rows is None else (3, 5, 4))
    assert (noisy_bias is None) == (not bias)
    expected = (weight @ input.unsqueeze(-1)).squeeze(-1)
    if noisy_bias is not None:
        expected = expected + noisy_bias
    torch.testing.assert_close(apply(input, *parameters, noise), expected)


@pytest.mark.parametrize("function", [noisy_linear, noisy_conv, noisy_conv_transpose])
@pytest.mark.parametrize("missing", ["bias", "bias_sigma"])
def test_one_bias_without_the_other_is_an_error(function: Any, missing: str) -> None:
    kernel = () if function is noisy_linear else (1, 1)
    weight, biases = torch.ones(2, 2, *kernel), {"bias": torch.ones(2), "bias_sigma": torch.ones(2)}
    noise: Any = noisynet.draw(noisynet.NoisyLinear(2, 2)).layer("")
    with pytest.raises(ValueError, match=f"^{missing}: got None beside the other, expected both"):
        function(
            torch.ones(3, 2, *kernel),
            weight=weight,
            weight_sigma=weight,
            noise=noise,
            **{**biases, missing: None},
        )


def test_autocast_leaves_float64_alone_as_nn_linear_does(noise: NoiseName) -> None:
    layer = noisynet.NoisyLinear(4, 4, noise=noise, dtype=torch.float64)
    noisynet.hold(layer)
    x = torch.randn(2, 4, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = layer(x)
        plain = nn.functional.linear(x, layer.weight, layer.bias)
    assert plain.dtype == under_autocast.dtype == torch.float64
    assert torch.equal(under_autocast, layer(x))


@pytest.mark.parametrize("rows", [None, 2])
def test_an_input_of_another_dtype_is_an_error_as_in_nn_linear(
    noise: NoiseName, rows: int | None
) -> None:
    layer = noisynet.NoisyLinear(4, 4, noise=noise, dtype=torch.float64)
    noisynet.hold(layer, rows=rows)
    with pytest.raises(RuntimeError, match=r"dtype|scalar type"):
        layer(torch.randn(2, 4))


def test_gradients_per_sample_by_vmap_are_those_of_a_loop(noise: NoiseName) -> None:
    layer = noisynet.NoisyLinear(3, 2, noise=noise, dtype=torch.float64)
    noisynet.hold(layer)
    parameters = {name: value.detach() for name, value in layer.named_parameters()}
    batch = torch.randn(5, 3, dtype=torch.float64)

    def loss(values: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(layer, values, (x,)).square().sum()

    together = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, batch)
    for number, x in enumerate(batch):
        layer.zero_grad()
        layer(x).square().sum().backward()
        for name, parameter in layer.named_parameters():
            torch.testing.assert_close(together[name][number], parameter.grad)
