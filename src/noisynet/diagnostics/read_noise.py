"""Reading the noise of a layer from outside, whatever library the layer comes from.

With every μ set to 0 and every σ to 1, a noisy layer computes only ε_w x + ε_b: an input of zeros
shows ε_b, and inputs that are 1 at one place and 0 elsewhere show columns of ε_w. So ε can be read
whether a layer keeps it in a buffer, a parameter, an attribute or nowhere at all. A convolution
gets fixed random inputs instead. Noisynet's own layers are asked for their noise directly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..layers import FactorisedNoise, IndependentNoise, NoisyLayer, resample
from ..layers.noise import CellNoise, NoiseKind, SequenceNoise
from ..layers.noise_state import Off
from .recognise import RecognisedLayer

Kind = NoiseKind | Literal["unknown"]

COLUMNS = 8
"""How many columns of ε_w are read: enough to tell two draws apart."""


@dataclass(frozen=True)
class Noise:
    """Part of a layer's ε, as one forward used it: (…, q, columns), with a draw's rows in front.

    The first column is ε_b if `has_bias`; the others are the first columns of ε_w. `is_matrix`
    is false for a convolution of another library, whose values are responses to fixed inputs.
    `per_row` is true if every forward makes a draw for each row of its input; this is then one of
    those draws.
    """

    values: Tensor
    has_bias: bool
    is_matrix: bool = True
    per_row: bool = False

    @property
    def is_on(self) -> bool:
        """Whether there is any noise; when it is off, every ε is 0."""
        return bool((self.values != 0).any())

    def equals(self, other: Noise) -> bool:
        """Return whether both are the same draw; different draws are equal with probability 0."""
        if self.values.shape != other.values.shape:
            return False
        return torch.allclose(self.values, other.values, rtol=1e-3, atol=1e-4)

    def is_picked_from(self, other: Noise) -> bool:
        """Return whether each of its rows, or its one draw, is among the rows of `other`."""
        own, others = self._by_row(), other._by_row()
        if own.shape[1:] != others.shape[1:]:
            return False
        found = [torch.isclose(own, row, rtol=1e-3, atol=1e-4).flatten(1).all(1) for row in others]
        return bool(torch.stack(found).any(0).all())

    def _by_row(self) -> Tensor:
        return self.values.reshape(-1, *self.values.shape[-2:])

    @property
    def weight(self) -> Tensor:
        """The columns of ε_w, (…, q, columns)."""
        return self.values[..., 1:] if self.has_bias else self.values

    @property
    def bias(self) -> Tensor | None:
        """The vector ε_b (…, q); None if the layer has no bias."""
        return self.values[..., 0] if self.has_bias else None


NoiseByLayer = Mapping[str, Noise]
"""The noise of each layer at one moment."""


def same_draws(first: NoiseByLayer, second: NoiseByLayer) -> list[str]:
    """Return the names of the layers that have the same draw at both moments."""
    return [one for one in first if one in second and first[one].equals(second[one])]


def read_all(layers: Mapping[str, RecognisedLayer]) -> NoiseByLayer:
    """Return the noise of each layer as it is now; layers that cannot be read are left out."""
    seen = {name: read_noise(found) for name, found in layers.items()}
    return {name: noise for name, noise in seen.items() if noise is not None}


@torch.no_grad()
def read_noise(found: RecognisedLayer, module: nn.Module | None = None) -> Noise | None:
    """Return the noise that a forward of this layer would use now; None if it cannot be read.

    `module` is read in place of the layer if a framework runs a copy of it. A layer that draws at
    every forward makes a new draw for this.
    """
    layer = found.module if module is None else module
    try:
        return _of_ours(layer) if isinstance(layer, NoisyLayer) else _of_another(found, layer)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, NotImplementedError):
        # Another library's forward may need more than its input and fail in any way without it;
        # the checks then say that the noise could not be seen.
        return None


def _of_ours(layer: NoisyLayer) -> Noise:
    noise = layer.noise_in_force()
    has_bias = layer.noise_spec().parts[0].bias
    if noise is None:
        return Noise(torch.zeros(1, COLUMNS + has_bias, device="cpu"), has_bias)
    if isinstance(noise, CellNoise | SequenceNoise):
        noise = noise.parts[0]
    assert isinstance(noise, FactorisedNoise | IndependentNoise), "no input was named"
    if isinstance(noise, FactorisedNoise):
        weight = noise.output.unsqueeze(-1) * noise.input[..., :COLUMNS].unsqueeze(-2)
    else:
        weight = noise.weight[..., :COLUMNS]
    bias = noise.bias_noise()
    columns = [weight] if bias is None or not has_bias else [bias.unsqueeze(-1), weight]
    values = torch.cat(columns, -1).detach().float().cpu().clone()
    # ε as it was drawn, without the scale; with a scale of 0 it cannot be recovered, and is 0.
    state = layer.noise_state
    return Noise(
        values / state.scale if state.scale else values,
        has_bias,
        per_row=state.per_row and state.override is None,
    )


def _of_another(found: RecognisedLayer, layer: nn.Module) -> Noise | None:
    means = found.tensors(found.means, layer)
    sigmas = found.tensors(found.sigmas, layer)
    # μ and σ are replaced, since any NaN in them would hide ε.
    replaced = {
        **_copies_of_tensors(layer),
        **{name: torch.zeros_like(one) for name, one in zip(found.means, means, strict=True)},
        **{name: torch.ones_like(one) for name, one in zip(found.sigmas, sigmas, strict=True)},
    }
    weight, has_bias = sigmas[0], any(one.ndim == 1 for one in sigmas)
    if weight.ndim == 2:
        inputs = found.inputs
        columns = min(COLUMNS, inputs)
        eye = torch.eye(columns, inputs, device=weight.device).to(weight.dtype)
        shown = torch.cat([weight.new_zeros(1, inputs), eye])
    else:
        channels = getattr(layer, "in_channels", weight.shape[1])
        shape = (3, channels, *weight.shape[2:])
        generator = torch.Generator("cpu").manual_seed(0)
        shown = torch.randn(shape, generator=generator, device="cpu").to(weight)
        shown[0] = 0
    with _in_place_of(layer, replaced):
        output = layer(shown)
    if not isinstance(output, Tensor):
        return None
    output = output.float().cpu()
    bias, others = output[:1], output[1:] - output[:1]
    if weight.ndim == 2:
        values = torch.cat([bias, others]).transpose(0, 1) if has_bias else others.transpose(0, 1)
        return Noise(values.clone(), has_bias)
    seen = torch.cat([bias, others]).flatten(2).transpose(0, 1).flatten(1)
    return Noise(seen.clone(), has_bias, is_matrix=False)


def _registers(module: nn.Module) -> list[dict[str, Any]]:
    """Return the dictionaries that a module keeps its tensors in."""
    own = vars(module)
    return [own["_parameters"], own["_buffers"], own]


def _copies_of_tensors(layer: nn.Module) -> dict[str, Tensor]:
    """Copy a layer's tensors, {name: copy}: a forward may draw into its own in place.

    Autograd may need them for a loss that has been computed already.
    """
    return {
        f"{path}.{leaf}".removeprefix("."): tensor.detach().clone()
        for path, module in layer.named_modules()
        for register in _registers(module)
        for leaf, tensor in register.items()
        if isinstance(tensor, Tensor)
    }


@contextmanager
def _in_place_of(layer: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Replace tensors of a layer inside the context, whatever kind of attribute they are.

    `torch.func.functional_call` replaces only parameters and buffers, but TorchRL's losses put
    plain tensors in their places.
    """
    former: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for name, tensor in tensors.items():
            path, _, leaf = name.rpartition(".")
            register = next(one for one in _registers(layer.get_submodule(path)) if leaf in one)
            former.append((register, leaf, register[leaf]))
            register[leaf] = tensor
        yield
    finally:
        for register, leaf, tensor in former:
            register[leaf] = tensor


def redraw(layers: Mapping[str, RecognisedLayer]) -> None:
    """Redraw by each layer's own method; a layer that draws at every forward is left alone."""
    for found in layers.values():
        # `resample` would make a fresh layer a held one.
        if not isinstance(found.module, NoisyLayer) or found.module.noise_state.held is not None:
            redraw_layer(found)


def redraw_layer(found: RecognisedLayer, module: nn.Module | None = None) -> None:
    """Redraw a layer, or a copy of it; a layer of noisynet holds the draw from then on."""
    layer = found.module if module is None else module
    if isinstance(layer, NoisyLayer):
        resample(layer)
    elif found.redraw is not None:
        getattr(layer, found.redraw)()


def is_fresh(found: RecognisedLayer) -> bool:
    """Return whether the layer is noisynet's and draws at every forward."""
    if not isinstance(found.module, NoisyLayer):
        return False
    state = found.module.noise_state
    return state.held is None and not isinstance(state.override, Tensor | Off)
