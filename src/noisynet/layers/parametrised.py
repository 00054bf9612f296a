"""Layers whose means a parametrisation of PyTorch makes: `spectral_norm`, `weight_norm` and others.

Such a layer keeps what is learned below `parametrizations`, and its weight is a property: to read
it is to make it, and with `spectral_norm` in training mode a step of the power iteration as well.
So a noisy layer reads its means once in a forward, and nowhere else.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn.utils import parametrize


def parametrised_names(layer: nn.Module) -> list[str]:
    """List the tensors of a layer that parametrisations make."""
    made = layer.__dict__["_modules"].get("parametrizations")
    return list(made) if made is not None and parametrize.is_parametrized(layer) else []


def mean_as_it_is(layer: nn.Module, name: str) -> Tensor | None:
    """Return a mean without a step of any power iteration; None where the layer has none."""
    if name not in parametrised_names(layer):
        return getattr(layer, name, None)
    # Evaluation mode keeps the vectors as they are; it is a copy's, for other threads may train.
    return copy.deepcopy(layer.get_submodule(f"parametrizations.{name}")).eval()()


def carry_over(former: nn.Module, layer: nn.Module) -> None:
    """Put the very parametrisations of a former layer onto another that has no such tensors yet.

    `parametrize.transfer_parametrizations_and_params` would make each tensor on the way, with a
    step of the power iteration.
    """
    names = parametrised_names(former)
    if not names:
        return
    parametrize._inject_new_class(layer)  # pyright: ignore[reportPrivateUsage]
    for name in names:
        parametrize._inject_property(layer, name)  # pyright: ignore[reportPrivateUsage]
    layer.add_module("parametrizations", former.get_submodule("parametrizations"))
