"""The amount of noise in each layer, σ relative to μ, and whether all of it is finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..layers import NoisyLayer, noisy_layers


def snr(module: nn.Module) -> dict[str, float]:
    """Return the signal-to-noise ratio of each noisy layer, RMS(μ) / RMS(σ) over its weights.

    The result is {"head.0": 14.2, …}, infinite if every σ is 0, and empty for a module without
    noise. σ is multiplied by the scale in force. A lazy layer without a shape is left out.
    """
    return _per_layer(module, _signal_to_noise)


def mean_sigma(module: nn.Module) -> dict[str, float]:
    """Return mean |σ| over the weights of each noisy layer, which the paper plots (§5, fig. 4).

    σ is multiplied by the scale in force. A lazy layer without a shape is left out.
    """
    return _per_layer(module, _mean_absolute_sigma)


def not_finite(module: nn.Module) -> dict[str, list[str]]:
    """List what contains NaN or infinity in each noisy layer: its parameters, or its "noise".

    The result is {"head.0": ["weight_sigma", "noise"], …}, and empty if all is finite. "noise" is
    the held draw, or one that `using` has put in force. Parameters of a lazy layer without a shape
    are left out. Costs one transfer from the device for each tensor.
    """
    found = {name: _not_finite(layer) for name, layer in noisy_layers(module).items()}
    return {name: parts for name, parts in found.items() if parts}


def _not_finite(layer: NoisyLayer) -> list[str]:
    tensors: list[tuple[str, Tensor]] = [
        (name, parameter)
        for name, parameter in layer.named_parameters(recurse=False)
        if not is_lazy(parameter)
    ]
    state = layer.noise_state
    tensors += [
        ("noise", flat) for flat in (state.held, state.override) if isinstance(flat, Tensor)
    ]
    names = [name for name, tensor in tensors if not bool(tensor.isfinite().all())]
    return list(dict.fromkeys(names))


def _signal_to_noise(layer: NoisyLayer) -> Tensor:
    means, sigmas = zip(*layer.noisy_weights(), strict=True)
    return _rms(means) / (_rms(sigmas) * layer.noise_state.scale)


def _mean_absolute_sigma(layer: NoisyLayer) -> Tensor:
    sigmas = [_at_least_float32(sigma).abs().flatten() for _, sigma in layer.noisy_weights()]
    return torch.cat(sigmas).mean() * layer.noise_state.scale


def _rms(tensors: Sequence[Tensor]) -> Tensor:
    # In half precision the square of a small σ is 0.
    squares = torch.stack([_at_least_float32(tensor).square().sum() for tensor in tensors])
    return torch.sqrt(squares.sum() / sum(tensor.numel() for tensor in tensors))


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _per_layer(module: nn.Module, figure: Callable[[NoisyLayer], Tensor]) -> dict[str, float]:
    with torch.no_grad():
        figures = {
            name: figure(layer)
            for name, layer in noisy_layers(module).items()
            if not any(map(is_lazy, layer.parameters(recurse=False)))
        }
    return {name: float(value) for name, value in figures.items()}
