"""Seeing the noise of a layer from outside, whatever library it is of.

With every μ set to 0 and every σ to 1 a noisy layer computes ε_w x + ε_b and nothing else: an input
of zeros shows ε_b, and inputs that are 1 at one place and 0 elsewhere show columns of ε_w. So ε can
be read off a layer that keeps it in a buffer, in a parameter, in an attribute or nowhere at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..layers import FactorisedNoise, IndependentNoise, NoisyLayer, NoisyLSTMCell, resample
from ..layers.layer import Off
from ..layers.noise import CellNoise
from ..layers.recurrent import NoisyGRUCell
from .recognise import Found

COLUMNS = 8
"""How many columns of ε_w are looked at: enough to tell two draws apart."""

Redraw = Callable[[], Any]


@dataclass(frozen=True)
class Noise:
    """A part of a layer's ε, as one forward saw it: (…, q, columns), rows of a draw in front.

    The first column is ε_b where `has_bias`; the others are the first columns of ε_w. `is_matrix`
    is false for a convolution of another library, where they are responses to a fixed input.
    """

    values: Tensor
    has_bias: bool
    is_matrix: bool = True

    @property
    def is_on(self) -> bool:
        """Tell whether there is any noise: off, every ε is 0."""
        return bool((self.values != 0).any())

    def equals(self, other: Noise) -> bool:
        """Tell whether both are the same draw; two draws agree with probability 0."""
        if self.values.shape != other.values.shape:
            return False
        return torch.allclose(self.values, other.values, rtol=1e-3, atol=1e-4)

    @property
    def weight(self) -> Tensor:
        """Give the columns of ε_w, (…, q, columns)."""
        return self.values[..., 1:] if self.has_bias else self.values

    @property
    def bias(self) -> Tensor | None:
        """Give ε_b (…, q); None where the layer has no bias."""
        return self.values[..., 0] if self.has_bias else None


@torch.no_grad()
def see(found: Found, module: nn.Module | None = None) -> Noise | None:
    """Give the noise that a forward of this layer would use now; None where it cannot be seen.

    `module` is looked at in place of the layer where a framework runs a copy of it. A layer that
    draws at every forward shows a draw of its own.
    """
    layer = found.module if module is None else module
    try:
        # A row with any NaN in μ or σ would show nothing; zeros and ones take their place.
        return _of_ours(layer) if isinstance(layer, NoisyLayer) else _of_another(found, layer)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, NotImplementedError):
        # Whatever a stranger's forward needs beyond its input: the checks say it was not seen.
        return None


def _of_ours(layer: NoisyLayer) -> Noise:
    noise = layer.noise_in_force()
    has_bias = bool(next(iter(_sigma_biases(layer)), None) is not None)
    if noise is None:
        return Noise(torch.zeros(1, COLUMNS + has_bias), has_bias)
    if isinstance(noise, CellNoise):
        noise = noise.input
    assert isinstance(noise, FactorisedNoise | IndependentNoise), "no input was named"
    if isinstance(noise, FactorisedNoise):
        weight = noise.output.unsqueeze(-1) * noise.input[..., :COLUMNS].unsqueeze(-2)
    else:
        weight = noise.weight[..., :COLUMNS]
    bias = noise.bias_noise()
    columns = [weight] if bias is None or not has_bias else [bias.unsqueeze(-1), weight]
    return Noise(torch.cat(columns, -1).detach().float().cpu().clone(), has_bias)


def _sigma_biases(layer: NoisyLayer) -> list[Tensor]:
    cell = isinstance(layer, NoisyLSTMCell | NoisyGRUCell)
    sigma = layer.bias_ih_sigma if cell else layer.bias_sigma
    return [] if sigma is None else [sigma]


def _of_another(found: Found, layer: nn.Module) -> Noise | None:
    means = found.tensors(found.means, layer)
    sigmas = found.tensors(found.sigmas, layer)
    replaced = {
        **{name: torch.zeros_like(one) for name, one in zip(found.means, means, strict=True)},
        **{name: torch.ones_like(one) for name, one in zip(found.sigmas, sigmas, strict=True)},
    }
    weight, has_bias = sigmas[0], any(one.ndim == 1 for one in sigmas)
    if weight.ndim == 2:
        inputs = found.inputs
        columns = min(COLUMNS, inputs)
        probe = torch.cat([weight.new_zeros(1, inputs), torch.eye(columns, inputs).to(weight)])
    else:
        channels = getattr(layer, "in_channels", weight.shape[1])
        shape = (3, channels, *weight.shape[2:])
        generator = torch.Generator().manual_seed(0)
        probe = torch.randn(shape, generator=generator).to(weight)
        probe[0] = 0
    with _in_place_of(layer, replaced):
        output = layer(probe)
    if not isinstance(output, Tensor):
        return None
    output = output.float().cpu()
    bias, others = output[:1], output[1:] - output[:1]
    if weight.ndim == 2:
        values = torch.cat([bias, others]).transpose(0, 1) if has_bias else others.transpose(0, 1)
        return Noise(values.clone(), has_bias)
    seen = torch.cat([bias, others]).flatten(2).transpose(0, 1).flatten(1)
    return Noise(seen.clone(), has_bias, is_matrix=False)


@contextmanager
def _in_place_of(layer: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Put tensors in the places of others inside, whatever kind of attribute those are.

    `torch.func.functional_call` takes parameters and buffers alone, and TorchRL's losses put plain
    tensors there.
    """
    former: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for name, tensor in tensors.items():
            path, _, leaf = name.rpartition(".")
            owner = layer.get_submodule(path).__dict__
            registers = (owner["_parameters"], owner["_buffers"], owner)
            register = next(one for one in registers if leaf in one)
            former.append((register, leaf, register[leaf]))
            register[leaf] = tensor
        yield
    finally:
        for register, leaf, tensor in former:
            register[leaf] = tensor


def redraw(layers: dict[str, Found]) -> None:
    """Draw anew by each layer's own means; a layer that draws at every forward is left alone."""
    for found in layers.values():
        layer = found.module
        if isinstance(layer, NoisyLayer):
            # `resample` would make a fresh layer a held one.
            if layer.noise_state.held is not None:
                resample(layer)
        elif found.redraw is not None:
            getattr(layer, found.redraw)()


def is_fresh(found: Found) -> bool:
    """Tell whether one of noisynet's layers draws at every forward."""
    layer = found.module
    if not isinstance(layer, NoisyLayer):
        return False
    return layer.noise_state.held is None and not isinstance(
        layer.noise_state.override, Tensor | Off
    )
