"""A noisy linear layer with a transposed weight is the `NoisyLinear` of its transpose."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import noisynet
from noisynet.layers import NoisyLinear, OutputNoise
from noisynet.layers.transposed import conv1d_of_transformers, noisy_kind_of

from .references import Transposed

# PyTorch's own forward derivatives are loaded with it.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*deprecated:DeprecationWarning")

P, Q, ROWS = 5, 3, 4


def twins(noise: str, plain: Any = None) -> tuple[Any, NoisyLinear]:
    """A noisy transposed layer, and a `NoisyLinear` of the same means, σ and held draw."""
    plain = Transposed(Q, P) if plain is None else plain
    layer: Any = noisy_kind_of(type(plain)).from_plain(plain, noise=noise)
    linear = NoisyLinear(P, Q, noise=noise, dtype=torch.float64)
    with torch.no_grad():
        layer.weight_sigma.copy_(torch.randn(P, Q))
        layer.bias_sigma.copy_(torch.randn(Q))
        linear.weight.copy_(layer.weight.mT)
        linear.weight_sigma.copy_(layer.weight_sigma.mT)
        linear.bias.copy_(layer.bias)
        linear.bias_sigma.copy_(layer.bias_sigma)
    return layer, linear


@pytest.mark.parametrize("rows", [None, ROWS])
@pytest.mark.parametrize("batch_first", [False, True])
def test_outputs_and_gradients_are_those_of_the_linear_layer(
    noise: str, rows: int | None, batch_first: bool
) -> None:
    layer, linear = twins(noise)
    noisynet.hold(layer, rows=rows, batch_first=batch_first if rows else None)
    noisynet.hold(linear, drawn=noisynet.held(layer))
    x = torch.randn(ROWS, ROWS, P, dtype=torch.float64, requires_grad=True)
    y, expected = layer(x), linear(x)
    torch.testing.assert_close(y, expected)
    parameters = [
        [one.weight, one.bias, one.weight_sigma, one.bias_sigma] for one in (layer, linear)
    ]
    got, of_linear = (
        torch.autograd.grad(output.pow(3).sum(), [x, *own])
        for output, own in zip((y, expected), parameters, strict=True)
    )
    for one, other in zip(got, of_linear, strict=True):
        torch.testing.assert_close(one, other if one.shape == other.shape else other.mT)
    weight, bias = layer.effective_weight()
    torch.testing.assert_close(weight.mT, linear.effective_weight()[0])
    torch.testing.assert_close(bias, linear.effective_weight()[1])


def test_the_means_alone_are_the_plain_layer(noise: str) -> None:
    plain = Transposed(Q, P)
    layer, _ = twins(noise, plain)
    assert isinstance(layer, Transposed)
    assert layer.weight is plain.weight
    x = torch.randn(2, 3, P, dtype=torch.float64)
    with noisynet.mean_weights(layer):
        assert torch.equal(layer(x), plain(x))
        assert layer.effective_weight() == (plain.weight, plain.bias)
    assert not torch.allclose(layer(x), plain(x))
    back = noisynet.denoise(nn.Sequential(layer))[0]
    assert type(back) is Transposed
    assert vars(back).keys() == vars(plain).keys()
    assert back.weight is plain.weight
    result = layer.load_state_dict(Transposed(Q, P).state_dict(), strict=False)
    assert result.missing_keys == ["weight_sigma", "bias_sigma"]


def test_initial_sigma_is_that_of_a_linear_layer(noise: str) -> None:
    layer: Any = noisy_kind_of(Transposed).from_plain(Transposed(Q, P), noise=noise)
    linear = NoisyLinear(P, Q, noise=noise, dtype=torch.float64)
    assert torch.equal(layer.weight_sigma.mT, linear.weight_sigma)
    assert torch.equal(layer.bias_sigma, linear.bias_sigma)
    assert noisynet.mean_sigma(layer) == noisynet.mean_sigma(linear)
    layer.reset_parameters()
    bound = (1 if noise == "factorised" else 3) ** 0.5 / P**0.5
    assert float(layer.weight.detach().abs().max()) <= bound


def test_fresh_noise_per_row_is_that_of_a_linear_layer(noise: str) -> None:
    layer, linear = twins(noise)
    noisynet.release(layer, linear, per_row=True)
    x = torch.randn(ROWS, P, dtype=torch.float64)
    torch.manual_seed(1)
    y = layer(x)
    torch.manual_seed(1)
    torch.testing.assert_close(y, linear(x))
    assert isinstance(layer.noise_in_force(x), OutputNoise) == (noise == "independent")


def test_both_derivatives_pass_the_numerical_check(noise: str) -> None:
    layer, _ = twins(noise)
    noisynet.hold(layer, rows=2, batch_first=True)
    names = [name for name, _ in layer.named_parameters()]

    def output(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    values = (torch.randn(2, 2, P, dtype=torch.float64, requires_grad=True), *layer.parameters())
    assert torch.autograd.gradcheck(output, values, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(output, values)


@pytest.mark.parametrize("size", [130, 260])
def test_large_layers_take_the_fast_forms(noise: str, size: int) -> None:
    """Beyond 2¹⁴ and 2¹⁶ elements, where linear layers change their form."""
    plain = Transposed(size, size)
    layer: Any = noisy_kind_of(Transposed).from_plain(plain, noise=noise)
    noisynet.hold(layer)
    for rows in (1, 40):
        x = torch.randn(rows, size, dtype=torch.float64)
        weight, bias = layer.effective_weight()
        expected = x @ weight + bias
        torch.testing.assert_close(layer(x), expected)
        with torch.no_grad():
            torch.testing.assert_close(layer(x), expected)
        got, reference = (
            torch.autograd.grad(y.square().sum(), [layer.weight, layer.weight_sigma])
            for y in (layer(x), expected)
        )
        for one, other in zip(got, reference, strict=True):
            torch.testing.assert_close(one, other)


def test_errors_and_repr() -> None:
    layer, _ = twins("factorised")
    for context in (noisynet.mean_weights(layer), torch.no_grad()):
        with context, pytest.raises(ValueError, match=r"got shape \(2, 4\), expected \(…, 5\)"):
            layer(torch.randn(2, 4, dtype=torch.float64))
    assert repr(layer) == "NoisyTransformersConv1D(nf=3, nx=5, noise='factorised' (fresh))"
    assert torch.equal(copy.deepcopy(layer).weight_sigma, layer.weight_sigma)


def test_nothing_is_recognised_that_nobody_imported() -> None:
    import sys

    if "transformers" not in sys.modules:
        assert conv1d_of_transformers() is None
