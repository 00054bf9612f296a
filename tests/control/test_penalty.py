"""NROWAN's penalty and its weight, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import noisynet
from noisynet.control import PenaltyWeight, sigma_penalty


def layer_with(sigma: list[list[float]], bias: list[float]) -> noisynet.NoisyLinear:
    layer = noisynet.NoisyLinear(2, 2)
    with torch.no_grad():
        layer.weight_sigma.copy_(torch.tensor(sigma))
        layer.bias_sigma.copy_(torch.tensor(bias))
    return layer


def test_the_mean_of_sigma_over_weights_and_biases_and_its_gradient() -> None:
    # D = (Σ σ_w + Σ σ_b) / ((p + 1) q), with p = q = 2.
    layer = layer_with([[0.1, -0.2], [0.3, 0.4]], [0.5, 0.6])
    penalty = sigma_penalty(layer)
    assert float(penalty.detach()) == pytest.approx(2.1 / 6)
    penalty.backward()
    sixth = 1 / 6
    assert layer.weight_sigma.grad.flatten().tolist() == pytest.approx(
        [sixth, -sixth, sixth, sixth]
    )
    assert layer.bias_sigma.grad.tolist() == pytest.approx([sixth, sixth])
    assert layer.weight.grad is None


def test_several_output_layers_are_one_mean() -> None:
    first, second = layer_with([[1.0, 1.0], [1.0, 1.0]], [1.0, 1.0]), noisynet.NoisyLinear(5, 1)
    with torch.no_grad():
        second.weight_sigma.fill_(4.0)
        second.bias_sigma.fill_(4.0)
    penalty = sigma_penalty(first, second).detach()
    assert float(penalty) == pytest.approx((6 * 1 + 6 * 4) / 12)


def test_the_weight_grows_with_the_returns() -> None:
    weight = PenaltyWeight(4.0, low=-100.0, high=100.0)
    found = [weight(one) for one in (None, -500.0, -100.0, 0.0, 50.0, 100.0, 1000.0)]
    assert found == pytest.approx([0.0, 0.0, 0.0, 2.0, 3.0, 4.0, 4.0])


def test_bad_input_is_one_line() -> None:
    with pytest.raises(ValueError, match="sigma_penalty: got Linear, expected a noisy layer"):
        sigma_penalty(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="sigma_penalty: got nothing"):
        sigma_penalty()
    with pytest.raises(ValueError, match="final: got -1"):
        PenaltyWeight(-1, 0, 1)
    for low, high in ((1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.inf)):
        with pytest.raises(ValueError, match="low, high: got"):
            PenaltyWeight(1, low, high)
