"""Initial μ and σ are the paper's, for weight and bias (arXiv 1706.10295, §3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

import noisynet
from noisynet.layers import initial
from noisynet.layers.noise import NoiseName, NoiseSpec

FACTORISED_ONLY = ["kaixhin", "torchrl", "tianshou", "pfrl", "dopamine"]
# √3136 = 56 and √64 = 8: (σ of the weight, σ of the bias) of a layer 3136 → 64, by hand.
FACTORISED_SIGMAS = {
    "paper": (0.5 / 56, 0.5 / 56),
    "book": (0.4 / 56, 0.4 / 56),
    "kaixhin": (0.5 / 56, 0.5 / 8),
    "torchrl": (0.5 / 56, 0.5 / 8),
    "tianshou": (0.5 / 56, 0.5 / 56),
    "pfrl": (0.4 / 56, 0.4 / 8),
    "dopamine": (0.1 / 56, 0.1 / 56),
}
OVER_OUTPUTS = {"kaixhin", "torchrl", "pfrl"}

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
def test_means_are_uniform_within_the_papers_bound(noise: NoiseName, name: str) -> None:
    # Eight layers, so that the biases are enough numbers: 2000.
    layers = [noisynet.NoisyLinear(P, Q, noise=noise) for _ in range(8)]
    values = torch.cat([getattr(layer, name).detach().flatten() for layer in layers])
    bound = BOUND[noise]

    assert float(values.abs().max()) <= bound
    # √n D > 2.2 has probability 2 exp(−2 · 2.2²) ≈ 1e-4; a bound wrong by √3 gives above 9.
    assert distance_to_uniform(values, bound) < 2.2
    assert distance_to_uniform(values, bound * math.sqrt(3)) > 9
    assert distance_to_uniform(values, bound * math.sqrt(P / Q)) > 4.5


def test_sigma0_takes_the_place_of_the_papers(noise: NoiseName) -> None:
    layer: Any = noisynet.NoisyLinear(P, Q, noise=noise, sigma0=0.4)
    expected = torch.tensor(0.4 / math.sqrt(P) if noise == "factorised" else 0.4)
    assert torch.equal(layer.weight_sigma, expected.expand(Q, P))
    assert torch.equal(layer.bias_sigma, expected.expand(Q))


def test_sigma0_of_zero_is_a_layer_without_noise(noise: NoiseName) -> None:
    layer = noisynet.NoisyLinear(4, 3, noise=noise, sigma0=0)
    x = torch.randn(5, 4)
    expected = torch.nn.functional.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), expected, rtol=1e-6, atol=1e-6)


def test_without_bias_there_is_no_bias_sigma(noise: NoiseName) -> None:
    layer = noisynet.NoisyLinear(P, Q, bias=False, noise=noise)
    assert layer.bias is None
    assert layer.bias_sigma is None
    assert dict(layer.named_parameters()).keys() == {"weight", "weight_sigma"}


def test_reset_parameters_starts_again(noise: NoiseName) -> None:
    layer = noisynet.NoisyLinear(P, Q, noise=noise)
    former = layer.weight.detach().clone()
    with torch.no_grad():
        for sigma in noisynet.sigma_parameters(layer):
            sigma.fill_(7)
    layer.reset_parameters()
    assert torch.equal(layer.weight_sigma, torch.tensor(SIGMA[noise]).expand(Q, P))
    assert not torch.equal(layer.weight, former)
    assert float(layer.weight.detach().abs().max()) <= BOUND[noise]


def test_reset_sigmas_leaves_the_means(noise: NoiseName) -> None:
    layer = noisynet.NoisyLinear(P, Q, noise=noise)
    former = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight_sigma.fill_(7)
    layer.reset_sigmas()
    assert torch.equal(layer.weight_sigma, torch.tensor(SIGMA[noise]).expand(Q, P))
    assert torch.equal(layer.weight, former)


def sigmas(layer: Any) -> tuple[Tensor, Tensor]:
    """The one σ of all weights, and the one of all biases."""
    (of_weight,), (of_bias,) = layer.weight_sigma.unique(), layer.bias_sigma.unique()
    return of_weight.detach(), of_bias.detach()


def test_every_preset_is_checked_here() -> None:
    assert FACTORISED_SIGMAS.keys() == initial.PRESETS.keys()
    assert {name for name in initial.PRESETS if "independent" in initial.PRESETS[name].sigma0} == {
        "paper",
        "book",
    }
    assert all(preset.source for preset in initial.PRESETS.values())


@pytest.mark.parametrize("init", FACTORISED_SIGMAS)
def test_factorised_sigma_of_each_preset_by_hand(init: Any) -> None:
    layer = noisynet.NoisyLinear(3136, 64, init=init)
    of_weight, of_bias = sigmas(layer)
    assert torch.equal(of_weight, torch.tensor(FACTORISED_SIGMAS[init][0]))
    assert torch.equal(of_bias, torch.tensor(FACTORISED_SIGMAS[init][1]))


@pytest.mark.parametrize("init", ["paper", "book"])
def test_independent_sigma_of_each_preset_by_hand(init: Any) -> None:
    layer = noisynet.NoisyLinear(3136, 64, noise="independent", init=init)
    assert sigmas(layer) == (torch.tensor(0.017), torch.tensor(0.017))


@pytest.mark.parametrize("init", FACTORISED_SIGMAS)
def test_a_given_sigma0_is_scaled_as_the_preset_scales_its_own(init: Any) -> None:
    # 3136 → 512, the first noisy layer of the Nature network: 0.1/56, and 0.1/√512 ≈ 0.0044194.
    layer = noisynet.NoisyLinear(3136, 512, init=init, sigma0=0.1)
    of_weight, of_bias = sigmas(layer)
    assert float(of_weight) == pytest.approx(0.00178571, rel=1e-5)
    bias = 0.00441942 if init in OVER_OUTPUTS else 0.00178571
    assert float(of_bias) == pytest.approx(bias, rel=1e-5)


@pytest.mark.parametrize("init", FACTORISED_SIGMAS)
@pytest.mark.parametrize("name", ["weight", "bias"])
def test_every_preset_draws_factorised_means_within_one_over_root_p(init: Any, name: str) -> None:
    layers = [noisynet.NoisyLinear(P, Q, init=init) for _ in range(8)]
    values = torch.cat([getattr(layer, name).detach().flatten() for layer in layers])
    bound = 1 / math.sqrt(P)
    assert float(values.abs().max()) <= bound
    assert distance_to_uniform(values, bound) < 2.2
    # Moments of U[−b, b]: mean 0 and variance b²/3, four standard errors each.
    count = len(values)
    assert abs(float(values.mean())) < 4 * bound / math.sqrt(3 * count)
    error = bound**2 * math.sqrt((1 / 5 - 1 / 9) / count)
    assert abs(float(values.square().mean()) - bound**2 / 3) < 4 * error


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_the_books_independent_means_are_the_papers(name: str) -> None:
    layers = [noisynet.NoisyLinear(P, Q, noise="independent", init="book") for _ in range(8)]
    values = torch.cat([getattr(layer, name).detach().flatten() for layer in layers])
    assert distance_to_uniform(values, math.sqrt(3 / P)) < 2.2


@pytest.mark.parametrize("init", FACTORISED_ONLY)
def test_a_preset_without_independent_noise_says_so(init: Any) -> None:
    message = f"'{init}', which has factorised noise only, expected one of book, paper"
    with pytest.raises(ValueError, match=message):
        noisynet.NoisyLinear(3, 2, noise="independent", init=init)
    with pytest.raises(ValueError, match=message):
        noisynet.noisify(nn.Sequential(nn.Linear(3, 2)), noise="independent", init=init)


@pytest.mark.parametrize("init", FACTORISED_SIGMAS)
def test_noisify_gives_the_presets_sigma_and_keeps_the_means(init: Any) -> None:
    net = nn.Sequential(nn.Linear(3136, 64))
    former = net[0].weight
    noisynet.noisify(net, init=init)
    assert net[0].weight is former
    of_weight, of_bias = sigmas(net[0])
    assert torch.equal(of_weight, torch.tensor(FACTORISED_SIGMAS[init][0]))
    assert torch.equal(of_bias, torch.tensor(FACTORISED_SIGMAS[init][1]))


@pytest.mark.parametrize("init", FACTORISED_SIGMAS)
def test_reset_parameters_keeps_to_the_preset(init: Any) -> None:
    layer = noisynet.NoisyLinear(3136, 64, init=init)
    with torch.no_grad():
        layer.weight_sigma.fill_(7)
        layer.weight.fill_(7)
    layer.reset_parameters()
    assert torch.equal(sigmas(layer)[0], torch.tensor(FACTORISED_SIGMAS[init][0]))
    assert float(layer.weight.detach().abs().max()) <= 1 / 56


def test_fan_in_and_not_the_shape_sets_the_values() -> None:
    # A convolution 3 → 8 with a 5×5 kernel: p = 75, q = 8.
    weight, of_weight, of_bias = torch.empty(8, 3, 5, 5), torch.empty(8, 3, 5, 5), torch.empty(8)
    spec = NoiseSpec("factorised", 75, 8, bias=True)
    initial.initialise_means(weight, None, spec, init="pfrl")
    assert 0.9 / math.sqrt(75) < float(weight.abs().max()) <= 1 / math.sqrt(75)
    initial.initialise_sigmas(of_weight, of_bias, spec, init="pfrl", sigma0=None)
    assert torch.equal(of_weight, torch.full_like(of_weight, 0.4 / math.sqrt(75)))
    assert torch.equal(of_bias, torch.full_like(of_bias, 0.4 / math.sqrt(8)))
    with pytest.raises(ValueError, match="factorised noise only"):
        initial.initialise_means(weight, None, replace(spec, kind="independent"), init="pfrl")


def test_the_names_that_a_type_checker_knows_are_those_of_the_presets() -> None:
    assert list(get_args(initial.InitName)) == list(initial.PRESETS)


@pytest.mark.parametrize(
    "make",
    [
        lambda noise: noisynet.NoisyLinear(3, 2, noise=noise),
        lambda noise: noisynet.NoisyConv2d(3, 2, 1, noise=noise),
        lambda noise: noisynet.NoisyGRU(3, 2, noise=noise),
        lambda noise: noisynet.noisify(nn.Linear(3, 2), noise=noise),
        lambda noise: noisynet.NoisyLinear.from_linear(nn.Linear(3, 2), noise=noise),
    ],
)
def test_the_american_spelling_makes_the_same_layer(make: Callable[[str], Any]) -> None:
    layer = make("factorized")
    assert layer.noise == "factorised"
    assert layer.noise_spec() == make("factorised").noise_spec()
    assert "noise='factorised'" in repr(layer)
