"""A fresh draw of independent noise per row, seen at the outputs: exact, and finite everywhere."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import noisynet
from noisynet.layers import OutputNoise, noisy_linear


def fresh_per_row(inputs: int, outputs: int, **options: Any) -> noisynet.NoisyLinear:
    layer = noisynet.NoisyLinear(inputs, outputs, noise="independent", **options)
    noisynet.release(layer, per_row=True)
    return layer


def test_by_hand() -> None:
    # mean = 1·3 + 2·(-1) + 0.5 = 1.5; variance = 0.1²·3² + 0.2²·1² + 0.3² = 0.09 + 0.04 + 0.09.
    y = noisy_linear(
        torch.tensor([3.0, -1.0]),
        torch.tensor([[1.0, 2.0]]),
        torch.tensor([0.5]),
        torch.tensor([[0.1, -0.2]]),
        torch.tensor([0.3]),
        OutputNoise(torch.tensor([2.0])),
    )
    assert y.item() == pytest.approx(1.5 + 2.0 * math.sqrt(0.22), rel=1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_has_the_distribution_of_a_matrix_per_row(bias: bool) -> None:
    layer = fresh_per_row(3, 2, bias=bias, sigma0=0.3, dtype=torch.float64)
    x = torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64)
    rows = 40_000
    with torch.no_grad():
        seen = layer(x.expand(rows, 3))
        drawn = noisynet.draw(layer, rows=rows)
        with noisynet.using(layer, drawn):
            reference = layer(x.expand(rows, 3))
        with noisynet.mean_weights(layer):
            mean = layer(x)
    deviation = 0.3 * math.sqrt(0.25 + 4.0 + 1.0 + (1.0 if bias else 0.0))
    for samples in (seen, reference):
        # Five standard errors of a mean and of a deviation; the two outputs share no noise.
        error = 5 * deviation / math.sqrt(rows)
        assert (samples.mean(0) - mean).abs().max() < error
        assert (samples.std(0) - deviation).abs().max() < error / math.sqrt(2)
        assert torch.corrcoef(samples.T)[0, 1].abs() < 5 / math.sqrt(rows)
        fourth = ((samples - mean) / deviation).pow(4).mean(0)
        assert (fourth - 3).abs().max() < 5 * math.sqrt(96 / rows)


def test_rows_and_times_have_draws_of_their_own() -> None:
    layer = fresh_per_row(4, 3)
    y = layer(torch.ones(5, 6, 4))
    assert y.shape == (5, 6, 3)
    assert y.flatten().unique().numel() == 5 * 6 * 3
    assert layer(torch.ones(4)).shape == (3,)


def test_costs_no_matrix_per_row() -> None:
    # A matrix for each of 4096 rows would take 4096 · 512 · 512 · 4 bytes = 4.3 GB.
    layer = fresh_per_row(512, 512)
    layer(torch.randn(4096, 512)).sum().backward()
    assert layer.weight_sigma.grad is not None


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_those_of_the_same_formula(bias: bool) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        x, zeta = torch.randn(3, 2, 4, requires_grad=True), torch.randn(3, 2, 5)
        weights = [torch.randn(5, 4, requires_grad=True) for _ in range(2)]
        biases = [torch.randn(5, requires_grad=True) if bias else None for _ in range(2)]
    finally:
        torch.set_default_dtype(torch.float32)

    def layer(
        x: torch.Tensor, mu: torch.Tensor, sigma: torch.Tensor, *of_bias: torch.Tensor
    ) -> torch.Tensor:
        mean, deviation = of_bias if bias else (None, None)
        return noisy_linear(x, mu, mean, sigma, deviation, OutputNoise(zeta))

    arguments = (x, *weights, *(one for one in biases if one is not None))
    assert torch.autograd.gradcheck(layer, arguments)
    assert torch.autograd.gradgradcheck(layer, arguments)


def test_a_row_without_variance_has_finite_gradients() -> None:
    layer = fresh_per_row(3, 2, bias=False)
    x = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]], requires_grad=True)
    y = layer(x)
    assert y[0].tolist() == [0.0, 0.0]
    y.square().sum().backward()
    assert x.grad is not None
    assert layer.weight_sigma.grad is not None
    assert x.grad.isfinite().all()
    assert layer.weight_sigma.grad.isfinite().all()
    assert layer.weight_sigma.grad.abs().sum() > 0


def test_a_second_derivative_under_autocast_is_close_to_that_in_float32() -> None:
    layer, x = fresh_per_row(8, 4, sigma0=0.5), torch.randn(16, 8, requires_grad=True)
    found = []
    for autocast in (False, True):
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = layer(x)
        (slope,) = torch.autograd.grad(y.float().square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), list(layer.parameters())[::2]))
    for exact, fast in zip(*found, strict=True):
        # Some ten roundings to 8 bits.
        assert (fast - exact).norm() < 10 * 2.0**-8 * exact.norm()


def test_without_sigma_it_is_the_mean() -> None:
    layer = fresh_per_row(3, 2, sigma0=0.0)
    x = torch.randn(4, 3, requires_grad=True)
    torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
    layer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
