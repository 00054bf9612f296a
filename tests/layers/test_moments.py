"""The moments and independence of the noise, each with an error bound and a fixed seed.

A mean of n independent values with variance v lies within 5 √(v/n) of its expectation but for one
time in two million; a correlation of n independent pairs within 5/√n.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import noisynet
from noisynet.layers import Draw, FactorisedNoise

from .references import new_net

DRAWS = 20_000
ABSOLUTE = math.sqrt(2 / math.pi)  # E|ε| of a standard normal


def assert_mean(values: Tensor, expected: float, variance: float) -> None:
    bound = 5 * math.sqrt(variance / values.numel())
    assert abs(float(values.double().mean()) - expected) < bound


def values_of(drawn: Draw) -> Tensor:
    """All ε of a draw, (rows, size): as flat as they are drawn."""
    return torch.cat(drawn.flats, dim=-1)


def assert_uncorrelated(first: Tensor, second: Tensor) -> None:
    """Each column of one with each of the other, in value and in magnitude, over the rows."""
    for a, b in ((first, second), (first.abs(), second.abs())):
        a, b = a.double() - a.double().mean(0), b.double() - b.double().mean(0)
        correlations = (a / a.norm(dim=0)).mT @ (b / b.norm(dim=0))
        assert float(correlations.abs().max()) < 5 / math.sqrt(len(a))


def test_factors_have_the_moments_of_f() -> None:
    layer = noisynet.NoisyLinear(3, 2)
    noise: Any = noisynet.draw(layer, rows=DRAWS).layer("")
    assert isinstance(noise, FactorisedNoise)
    for factor in (noise.input, noise.output):
        assert_mean(factor, 0.0, ABSOLUTE)
        assert_mean(factor.square(), ABSOLUTE, 1 - 2 / math.pi)


def test_factorised_weight_noise_has_mean_square_two_over_pi() -> None:
    noise: Any = noisynet.draw(noisynet.NoisyLinear(3, 2), rows=DRAWS).layer("")
    # The weights of one draw depend on each other: each is checked over the draws.
    for weight in noise.weight_noise().flatten(1).T:
        assert_mean(weight, 0.0, 2 / math.pi)
        assert_mean(weight.square(), 2 / math.pi, 1 - (2 / math.pi) ** 2)
    assert_mean(noise.bias_noise().square(), ABSOLUTE, 1 - 2 / math.pi)


def test_independent_noise_is_standard_normal() -> None:
    noise: Any = noisynet.draw(noisynet.NoisyLinear(3, 2, noise="independent"), rows=DRAWS).layer(
        ""
    )
    for values in (noise.weight_noise(), noise.bias_noise()):
        assert_mean(values, 0.0, 1.0)
        assert_mean(values.square(), 1.0, 2.0)
        assert_mean(values**4, 3.0, 96.0)


def test_the_noise_of_an_output_has_the_variance_of_the_paper() -> None:
    # Var y_j = Σ_i (σ x_i)² 2/π + σ² √(2/π), for x = (1, 2) and σ = 0.5/√2.
    layer = noisynet.NoisyLinear(2, 1)
    noisynet.release(layer, per_row=True)
    with torch.no_grad():
        y = layer(torch.tensor([1.0, 2.0]).expand(DRAWS, 2))
        mean = nn.functional.linear(torch.tensor([1.0, 2.0]), layer.weight, layer.bias)
    variance = 0.125 * (5 * 2 / math.pi + ABSOLUTE)
    assert_mean(y - mean, 0.0, variance)
    # Its tails are heavier than normal: bound the variance of the square by the sample's.
    squares = (y - mean).square()
    assert_mean(squares, variance, float(squares.var()))


def test_the_bias_noise_is_the_output_factor() -> None:
    noise: Any = noisynet.draw(noisynet.NoisyLinear(6, 5)).layer("")
    assert isinstance(noise, FactorisedNoise)
    assert torch.equal(noise.bias_noise(), noise.output)
    assert torch.equal(noise.weight_noise(), torch.outer(noise.output, noise.input))


def test_layers_and_factors_are_independent_of_each_other(net: Any) -> None:
    values = values_of(noisynet.draw(net, rows=DRAWS))
    for columns in (values, values.abs()):
        correlations = torch.corrcoef(columns.T.double()).fill_diagonal_(0)
        assert float(correlations.abs().max()) < 5 / math.sqrt(DRAWS)


def test_rows_are_independent_of_each_other(net: Any) -> None:
    values = values_of(noisynet.draw(net, rows=DRAWS))
    assert_uncorrelated(values[:-1], values[1:])
    assert_uncorrelated(values[: DRAWS // 2], values[DRAWS // 2 :])


def test_networks_are_independent_of_each_other(net: Any) -> None:
    online, target, again = noisynet.draw(net, net, net, rows=DRAWS)
    assert_uncorrelated(values_of(online), values_of(target))
    assert_uncorrelated(values_of(target), values_of(again))


def test_draws_after_each_other_are_independent(net: Any) -> None:
    noisynet.hold(net, rows=DRAWS)
    former: Any = noisynet.held(net)
    noisynet.resample(net)
    now: Any = noisynet.held(net)
    assert_uncorrelated(values_of(former), values_of(now))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_moments_hold_in_other_dtypes(dtype: torch.dtype) -> None:
    values = values_of(noisynet.draw(new_net(dtype=dtype), rows=10_000))
    assert values.dtype == dtype
    # bfloat16 rounds each value by at most 2⁻⁹ of itself, which moves a mean of squares by less.
    squares = values.double().square()
    bound = 5 * math.sqrt((1 - 2 / math.pi) / squares.numel()) + 2.0**-9
    assert abs(float(squares.mean()) - ABSOLUTE) < bound
