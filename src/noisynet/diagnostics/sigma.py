"""How much noise there is: σ against μ, per layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..layers import NoisyLayer, noisy_layers


def snr(module: nn.Module) -> dict[str, float]:
    """Give the signal-to-noise ratio of each noisy layer, RMS(μ) / RMS(σ) over its weights.

    {"head.0": 14.2, …}; infinite where every σ is 0. Raises nothing for a module without noise:
    the answer is empty.
    """
    return _per_layer(module, lambda layer: _rms(layer.weight) / _rms(layer.weight_sigma))


def mean_sigma(module: nn.Module) -> dict[str, float]:
    """Give mean |σ| over the weights of each noisy layer, what the paper follows (§5, fig. 4)."""
    return _per_layer(module, lambda layer: layer.weight_sigma.abs().mean())


def _rms(tensor: Tensor) -> Tensor:
    return tensor.square().mean().sqrt()


def _per_layer(module: nn.Module, figure: Callable[[NoisyLayer], Tensor]) -> dict[str, float]:
    with torch.no_grad():
        figures = {name: figure(layer) for name, layer in noisy_layers(module).items()}
    return {name: float(value) for name, value in figures.items()}
