"""Layers whose means PyTorch's parametrisations compute: `spectral_norm`, `weight_norm` and others.

Such a layer keeps its learned parameters under `parametrizations`, and its weight is a property:
every access computes it, and with `spectral_norm` in training mode also takes a step of the power
iteration. So a noisy layer reads its means once in a forward, and nowhere else.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn.utils import parametrize


def parametrised_names(layer: nn.Module) -> list[str]:
    """List the names of a layer's tensors that parametrisations compute."""
    made = layer.__dict__["_modules"].get("parametrizations")
    return list(made) if made is not None and parametrize.is_parametrized(layer) else []


def mean_without_side_effects(layer: nn.Module, name: str) -> Tensor | None:
    """Return a mean without a step of any power iteration; None if the layer lacks it."""
    if name not in parametrised_names(layer):
        return getattr(layer, name, None)
    # In eval mode the vectors stay as they are; on a copy, since other threads may be training.
    return copy.deepcopy(layer.get_submodule(f"parametrizations.{name}")).eval()()


def carry_over(former: nn.Module, layer: nn.Module) -> None:
    """Share the parametrisations of a former layer with one that does not have those tensors yet.

    `parametrize.transfer_parametrizations_and_params` would compute each tensor on the way, with a
    step of the power iteration.
    """
    names = parametrised_names(former)
    if not names:
        return
    parametrize._inject_new_class(layer)  # pyright: ignore[reportPrivateUsage]
    for name in names:
        parametrize._inject_property(layer, name)  # pyright: ignore[reportPrivateUsage]
    layer.add_module("parametrizations", former.get_submodule("parametrizations"))
