"""Noisy weights that are computed once for all forwards of a rollout under the same held draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..layers import NoisyLinear
from ..layers.parametrised import parametrised_names


class ActingWeights:
    """A cache of the noisy weights of a network's linear layers, for a held draw without rows.

    A layer computes its noisy weights at every forward. For acting, this computes them on first
    use, and again only when a parameter, the draw or its scale has changed.
    """

    def __init__(self, network: nn.Module) -> None:
        self._layers = [
            layer
            for layer in network.modules()
            # Subclasses, and layers with parametrised weights, compute their own.
            if type(layer) is NoisyLinear and not parametrised_names(layer)
        ]
        self._memory: dict[NoisyLinear, Tensor] = {}
        self._made_of: list[Any] = []
        # Keeps the held draw alive: no other tensor can take its id, which `_made_of` compares.
        self._made: list[tuple[Tensor | None, Callable[[Tensor], Tensor]]] = []

    @contextmanager
    def used(self) -> Iterator[None]:
        """Use the cached weights inside, if gradients are off and every layer holds such a draw."""
        if torch.is_grad_enabled() or not all(map(_holds_for_batch, self._layers)):
            yield
            return
        made_of = self._ingredients()
        if made_of != self._made_of:
            self._made = [(one.noise_state.held, self._forward_of(one)) for one in self._layers]
            self._made_of = made_of
        for layer, (_, forward) in zip(self._layers, self._made, strict=True):
            layer.__dict__["forward"] = forward
        try:
            yield
        finally:
            for layer in self._layers:
                del layer.__dict__["forward"]

    def _ingredients(self) -> list[Any]:
        """List values of which one changes when a weight, the draw or its scale is changed."""
        states = [layer.noise_state for layer in self._layers]
        tensors = [state.held for state in states]
        for layer in self._layers:
            tensors += (layer.weight, layer.bias, layer.weight_sigma, layer.bias_sigma)
        return [
            *[state.scale for state in states],
            *[id(one) for one in tensors],
            *[one._version for one in tensors if one is not None],
            # What assigns to `.data` counts as no version, such as `vector_to_parameters`.
            *[one.data_ptr() for one in tensors if one is not None],
        ]

    def _forward_of(self, layer: NoisyLinear) -> Callable[[Tensor], Tensor]:
        mean = layer.weight
        memory = self._memory.get(layer)
        if memory is None or memory.device != mean.device or memory.dtype != mean.dtype:
            with torch.inference_mode(False):  # it may be used outside inference_mode later
                memory = self._memory[layer] = torch.empty_like(mean)
        # New memory for a large weight would take longer than the arithmetic.
        weight, bias = layer.effective_weight(memory=memory)
        return partial(functional.linear, weight=weight, bias=bias)


def _holds_for_batch(layer: NoisyLinear) -> bool:
    state = layer.noise_state
    held = state.held
    return (
        state.override is None
        and held is not None
        and held.ndim == 1
        and "forward" not in layer.__dict__
    )
