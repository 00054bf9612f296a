"""ReDo: reinitialising dormant units and their noise (arXiv 2302.12902, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..diagnostics.hidden_layer import HiddenLayer
from ..diagnostics.units import is_dormant, measure_units, scores
from .initial_values import new_initial_values, why_not_reinitialisable
from .moments import check_knows, forget_part


class ActivationsNotFinite(ValueError):
    """Activations that are NaN or infinite, which no new units cure."""


@dataclass(frozen=True)
class Part:
    """A part of a parameter: the weights at `index` along dimension `dim`."""

    name: str
    parameter: nn.Parameter
    dim: int
    index: Tensor


def search(
    net: nn.Module, batch: Any, *, threshold: float, draws: int, seed: int
) -> tuple[dict[str, HiddenLayer], dict[str, Tensor]]:
    """Return the hidden layers of a network, and the indices of the dormant units of each.

    Raises ActivationsNotFinite.
    """
    device = next(net.parameters(), torch.empty(0)).device
    generator = torch.Generator(device).manual_seed(seed)
    layers = measure_units(net, batch, draws=draws, generator=generator)
    broken = [repr(name) for name, layer in layers.items() if scores(layer).isnan().any()]
    if broken:
        raise ActivationsNotFinite(
            f"net: got activations of {', '.join(broken)} that are NaN or infinite on the batch, "
            "expected finite ones"
        )
    return layers, {
        name: is_dormant(layer, threshold).nonzero().squeeze(1).to(device)
        for name, layer in layers.items()
    }


def why_not_treatable(layer: HiddenLayer, owners: Mapping[int, int]) -> str | None:
    """Return why a layer's units cannot be reinitialised; None if they can.

    `owners` maps the id of a parameter to the number of modules that have it.
    """
    if layer.unknown is not None:
        return f"read by {layer.unknown}"
    if not layer.readers:
        return "nothing that was seen reads it"
    if getattr(layer.module, "groups", 1) != 1:
        return "a convolution of several groups"
    modules = [layer.module, *layer.norms, *(reader.module for reader in layer.readers.values())]
    parameters = [one for module in modules for one in module.parameters(recurse=False)]
    if any(not one.requires_grad for one in parameters):
        return "it, or what reads it, has frozen weights"
    if any(owners[id(one)] > 1 for one in parameters):
        return "it, or what reads it, shares a weight with another layer"
    return why_not_reinitialisable(layer.module)


@torch.no_grad()
def reinitialise_units(
    optimizers: Sequence[Optimizer],
    layers: Mapping[str, HiddenLayer],
    units: Mapping[str, Tensor],
    names: Mapping[nn.Module, str],
    seed: int,
) -> None:
    """Reinitialise units, given their indices by layer.

    Incoming weights, with bias and norm, get new initial values: μ as the layer first draws it, σ
    its initial constant, so that the unit has the noise of a new one. Outgoing weights are set to
    0, both μ and σ: if σ were left, the unit would act on the output through the noise before it
    has learned anything. σ learns from there as μ does. A weight between two new units counts as
    incoming; otherwise a network that is dead as a whole would stay at 0.
    """
    outgoing = [part for name in units for part in _outgoing(layers[name], units[name], names)]
    incoming = [part for name in units for part in _incoming(layers[name], units[name], names)]
    check_knows(optimizers, [(part.name, part.parameter) for part in (*outgoing, *incoming)])
    for part in outgoing:
        part.parameter.index_fill_(part.dim, part.index, 0)
    modules = [one for name in units for one in (layers[name].module, *layers[name].norms)]
    values: dict[int, Tensor] = {}
    for module, fresh in zip(modules, new_initial_values(modules, seed), strict=True):
        own = dict(module.named_parameters(recurse=False))
        values |= {id(own[name]): value for name, value in fresh.items()}
    for part in incoming:
        drawn = values[id(part.parameter)].index_select(part.dim, part.index)
        part.parameter.index_copy_(part.dim, part.index, drawn)
    for part in (*outgoing, *incoming):
        for optimizer in optimizers:
            forget_part(optimizer, part.parameter, part.dim, part.index)


def _outgoing(layer: HiddenLayer, units: Tensor, names: Mapping[nn.Module, str]) -> Iterator[Part]:
    """Yield the parts that read the units: columns of the weights behind them, μ and σ."""
    for reader in layer.readers.values():
        places = torch.arange(reader.block, device=units.device)
        columns = (units.unsqueeze(1) * reader.block + places).flatten()
        yield from (
            Part(name, parameter, 1, columns)
            for name, parameter in _own(reader.module, names)
            if parameter.ndim > 1
        )


def _incoming(layer: HiddenLayer, units: Tensor, names: Mapping[nn.Module, str]) -> Iterator[Part]:
    """Yield the parts that make the units: rows of weights, biases (μ and σ) and norms."""
    for name, parameter in _own(layer.module, names):
        yield Part(name, parameter, 0, units)
    of_images = next(layer.module.parameters(recurse=False)).ndim - 1
    for norm in layer.norms:
        for name, parameter in _own(norm, names):
            # A LayerNorm over the positions of an image alone has no gain for a unit.
            if isinstance(norm, nn.GroupNorm) or parameter.ndim == of_images:
                yield Part(name, parameter, 0, units)


def _own(module: nn.Module, names: Mapping[nn.Module, str]) -> Iterator[tuple[str, nn.Parameter]]:
    for name, parameter in module.named_parameters(recurse=False):
        yield f"{names[module]}.{name}".removeprefix("."), parameter
