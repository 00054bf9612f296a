"""SNR and mean |σ| by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import noisynet


def layer_with(weight: list[list[float]], sigma: list[list[float]]) -> noisynet.NoisyLinear:
    layer = noisynet.NoisyLinear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.weight_sigma.copy_(torch.tensor(sigma))
        layer.bias.fill_(100.0)
        layer.bias_sigma.fill_(50.0)
    return layer


def test_snr_and_mean_sigma_by_hand() -> None:
    # RMS(μ) = √((9 + 16 + 0 + 0)/4) = 2.5; RMS(σ) = √(4 · 0.25/4) = 0.5. Biases do not count.
    first = layer_with([[3.0, -4.0], [0.0, 0.0]], [[0.5, -0.5], [0.5, 0.5]])
    # RMS(μ) = 1; RMS(σ) = √((0.04 + 0.16)/4) = √0.05; mean |σ| = 0.15.
    second = layer_with([[1.0, 1.0], [-1.0, 1.0]], [[0.2, 0.0], [0.0, -0.4]])
    net = nn.ModuleDict({"torso": nn.Linear(2, 2), "head": nn.Sequential(first, second)})
    assert noisynet.snr(net) == pytest.approx({"head.0": 5.0, "head.1": 1 / math.sqrt(0.05)})
    assert noisynet.mean_sigma(net) == pytest.approx({"head.0": 0.5, "head.1": 0.15})
    assert all(type(value) is float for value in noisynet.snr(net).values())


def test_a_layer_without_noise_has_an_infinite_ratio() -> None:
    layer = layer_with([[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]])
    assert noisynet.snr(layer) == {"": math.inf}
    assert noisynet.mean_sigma(layer) == {"": 0.0}


def test_the_papers_initial_values() -> None:
    # μ ~ U[±1/√p] has RMS 1/√(3p) and σ = 0.5/√p: the ratio is 2/√3 whatever p; the RMS of 10⁵
    # uniform values is within 1 % of it.
    torch.manual_seed(0)
    layer = noisynet.NoisyLinear(400, 250)
    assert noisynet.snr(layer)[""] == pytest.approx(2 / math.sqrt(3), rel=0.01)
    assert noisynet.mean_sigma(layer)[""] == pytest.approx(0.5 / 20)


def test_a_module_without_noise_has_no_figures() -> None:
    assert noisynet.snr(nn.Linear(2, 2)) == {}
    assert noisynet.mean_sigma(nn.Linear(2, 2)) == {}


def test_asking_leaves_no_graph_and_draws_nothing() -> None:
    layer = noisynet.NoisyLinear(3, 2)
    state = torch.get_rng_state()
    noisynet.snr(layer)
    noisynet.mean_sigma(layer)
    assert torch.equal(torch.get_rng_state(), state)
    assert noisynet.held(layer) is None


def test_what_is_not_finite_is_named() -> None:
    net = nn.ModuleDict(
        {
            "torso": nn.Linear(2, 2),
            "head": nn.Sequential(noisynet.NoisyLinear(2, 2), noisynet.NoisyConv1d(2, 2, 1)),
            "cell": noisynet.NoisyGRUCell(2, 2),
        }
    )
    noisynet.hold(net)
    assert noisynet.not_finite(net) == {}
    with torch.no_grad():
        net["torso"].weight.fill_(math.nan)  # No noisy layer.
        net["head"][0].weight_sigma[1, 0] = math.nan
        net["head"][0].bias[0] = -math.inf
        net["cell"].weight_hh_sigma[0, 0] = math.inf
        net["cell"].noise_state.held[3] = math.nan
    found = {"head.0": ["bias", "weight_sigma"], "cell": ["weight_hh_sigma", "noise"]}
    assert noisynet.not_finite(net) == found
    noisynet.resample(net)
    found["cell"].remove("noise")
    assert noisynet.not_finite(net) == found


def test_a_draw_in_force_counts_as_noise() -> None:
    layer = noisynet.NoisyLinear(2, 2)
    drawn = noisynet.draw(layer)
    drawn.flats[0][0] = math.inf
    with noisynet.using(layer, drawn):
        assert noisynet.not_finite(layer) == {"": ["noise"]}
    assert noisynet.not_finite(layer) == {}
    with noisynet.mean_weights(layer):
        assert noisynet.not_finite(layer) == {}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_loses_no_small_sigma(dtype: torch.dtype) -> None:
    layer = noisynet.NoisyLinear(64, 32, sigma0=1e-4)
    whole = noisynet.snr(layer)[""], noisynet.mean_sigma(layer)[""]
    layer.to(dtype)
    half = noisynet.snr(layer)[""], noisynet.mean_sigma(layer)[""]
    assert half == pytest.approx(whole, rel=0.01)
