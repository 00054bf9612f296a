"""Initial μ and σ are the paper's, for weight and bias (arXiv 1706.10295, §3.2)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import noisynet

P, Q = 160, 250  # p ≠ q, so that a bound or σ made from q is found out
BOUND = {"factorised": 1 / math.sqrt(P), "independent": math.sqrt(3 / P)}
SIGMA = {"factorised": 0.5 / math.sqrt(P), "independent": 0.017}


def distance_to_uniform(values: Tensor, bound: float) -> float:
    """Kolmogorov and Smirnov's √n D of values against U[−bound, bound]."""
    ordered = values.detach().flatten().double().sort().values
    count = len(ordered)
    theory = (ordered + bound) / (2 * bound)
    steps = torch.arange(count + 1, dtype=torch.float64) / count
    largest = torch.maximum((theory - steps[:-1]).abs(), (theory - steps[1:]).abs()).max()
    return math.sqrt(count) * float(largest)


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_means_are_uniform_within_the_papers_bound(noise: str, name: str) -> None:
    # Eight layers, so that the biases are enough numbers: 2000.
    layers = [noisynet.NoisyLinear(P, Q, noise=noise) for _ in range(8)]
    values = torch.cat([getattr(layer, name).detach().flatten() for layer in layers])
    bound = BOUND[noise]

    assert float(values.abs().max()) <= bound
    # √n D > 2.2 has probability 2 exp(−2 · 2.2²) ≈ 1e-4; a bound wrong by √3 gives above 9.
    assert distance_to_uniform(values, bound) < 2.2
    assert distance_to_uniform(values, bound * math.sqrt(3)) > 9
    assert distance_to_uniform(values, bound * math.sqrt(P / Q)) > 4.5


def test_sigma_is_exactly_the_papers_constant_for_weight_and_bias(noise: str) -> None:
    layer = noisynet.NoisyLinear(P, Q, noise=noise)
    expected = torch.tensor(SIGMA[noise])
    assert torch.equal(layer.weight_sigma, expected.expand(Q, P))
    # √p for the bias too: p is the number of inputs of the layer.
    assert torch.equal(layer.bias_sigma, expected.expand(Q))


def test_sigma0_takes_the_place_of_the_papers(noise: str) -> None:
    layer = noisynet.NoisyLinear(P, Q, noise=noise, sigma0=0.4)
    expected = torch.tensor(0.4 / math.sqrt(P) if noise == "factorised" else 0.4)
    assert torch.equal(layer.weight_sigma, expected.expand(Q, P))
    assert torch.equal(layer.bias_sigma, expected.expand(Q))


def test_sigma0_of_zero_is_a_layer_without_noise(noise: str) -> None:
    layer = noisynet.NoisyLinear(4, 3, noise=noise, sigma0=0)
    x = torch.randn(5, 4)
    expected = torch.nn.functional.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), expected, rtol=1e-6, atol=1e-6)


def test_without_bias_there_is_no_bias_sigma(noise: str) -> None:
    layer = noisynet.NoisyLinear(P, Q, bias=False, noise=noise)
    assert layer.bias is None
    assert layer.bias_sigma is None
    assert dict(layer.named_parameters()).keys() == {"weight", "weight_sigma"}


def test_reset_parameters_starts_again(noise: str) -> None:
    layer = noisynet.NoisyLinear(P, Q, noise=noise)
    former = layer.weight.detach().clone()
    with torch.no_grad():
        for sigma in noisynet.sigma_parameters(layer):
            sigma.fill_(7)
    layer.reset_parameters()
    assert torch.equal(layer.weight_sigma, torch.tensor(SIGMA[noise]).expand(Q, P))
    assert not torch.equal(layer.weight, former)
    assert float(layer.weight.detach().abs().max()) <= BOUND[noise]


def test_reset_sigmas_leaves_the_means(noise: str) -> None:
    layer = noisynet.NoisyLinear(P, Q, noise=noise)
    former = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight_sigma.fill_(7)
    layer.reset_sigmas()
    assert torch.equal(layer.weight_sigma, torch.tensor(SIGMA[noise]).expand(Q, P))
    assert torch.equal(layer.weight, former)
