"""Torsos whose filters are as wide as their strides: convolutions are products over patches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from .image_torsos import StridedTorso, whole_pixels


class PatchTorso(StridedTorso):
    """A CNN whose filters are as wide as their strides: each layer is one matrix product.

    Patches are cut from the bytes of the frames, so prepared frames are patches (…, positions,
    pixels). Outputs that no later filter reaches are neither computed nor normalised. If the
    convolutions are noisy or have forward hooks, they run as modules instead, on whole frames.
    """

    def __init__(
        self,
        observation_shape: Sequence[int],
        *,
        standardised: bool = False,
        layer_norm: bool = False,
    ) -> None:
        """Build the convolutions for observations of (stack, height, width)."""
        super().__init__(observation_shape, standardised=standardised, layer_norm=layer_norm)
        self._layer_norm = layer_norm
        # From the last layer back: a layer's outputs, in height and width, that later layers reach.
        sizes = list(observation_shape[1:])
        for _, size, _ in self.layers:
            sizes = [one // size for one in sizes]
        self._positions: list[tuple[int, int]] = []
        for _, size, _ in reversed(self.layers):
            self._positions.insert(0, (sizes[0], sizes[1]))
            sizes = [one * size for one in sizes]

    @property
    def _by_patches(self) -> bool:
        return all(
            type(one) is nn.Conv2d and not one.__dict__["_forward_hooks"] for one in self._layers()
        )

    def _layers(self) -> list[nn.Conv2d]:
        return [one for one in self.convolutions if isinstance(one, nn.Conv2d)]

    def prepare(self, observation: Tensor) -> Tensor:
        """Turn uint8 frames (…, stack, height, width) into patches (…, positions, pixels).

        Frames stay whole if the convolutions run as modules. Floats are returned unchanged.
        """
        if observation.dtype != torch.uint8 or not self._by_patches:
            return super().prepare(observation)
        patches = self._cut(whole_pixels(observation), layer=0).view(torch.uint8)
        return self._floats(patches, partial(self._cut, layer=0))

    def _cut(self, images: Tensor, layer: int) -> Tensor:
        """Cut images (…, height, width, channels) into a layer's patches (…, positions, inputs)."""
        size = self.layers[layer][1]
        rows, columns = self._positions[layer]
        used = images[..., : rows * size, : columns * size, :]
        patches = used.unflatten(-3, (rows, size)).unflatten(-2, (columns, size)).transpose(-4, -3)
        return patches.reshape(*images.shape[:-3], rows * columns, -1)

    def forward(self, observation: Tensor) -> Tensor:
        """Return features (…, features)."""
        prepared = self.prepare(observation)
        if not self._by_patches:
            rows, columns = (one * self.layers[0][1] for one in self._positions[0])
            images = prepared[..., :rows, :columns].reshape(
                -1, self.observation_shape[0], rows, columns
            )
            return self.convolutions(images).reshape(*prepared.shape[:-3], self.features)
        if prepared.shape[-3:] == self.observation_shape:  # floats that are still whole frames
            prepared = self._cut(prepared.movedim(-3, -1), 0)
        leading = prepared.shape[:-2]
        patches = prepared.reshape(-1, *prepared.shape[-2:])
        for layer, convolution in enumerate(self._layers()):
            if layer:
                rows, columns = self._positions[layer - 1]
                patches = self._cut(patches.unflatten(-2, (rows, columns)), layer)
            weight = convolution.weight.permute(0, 2, 3, 1).flatten(1)
            # In two dimensions, since autograd copies a view that is modified in place.
            product = functional.linear(patches.flatten(0, 1), weight, convolution.bias)
            if self._layer_norm:
                product = product.unflatten(0, patches.shape[:2]).flatten(1)
                product = functional.layer_norm(product, product.shape[1:])
            patches = product.relu_().view(*patches.shape[:2], -1)
        # In the order of `convolutions`, filters first.
        return patches.transpose(1, 2).reshape(*leading, self.features)


class DataEfficientTorso(PatchTorso):
    """The CNN of data-efficient Rainbow: 576 features from 84 by 84 pixels.

    Van Hasselt, Hessel and Aslanides 2019, arXiv 1906.05243. It takes a seventh of the Nature
    CNN's multiplications, and has a fifth of its features. It needs at least 25 by 25 pixels.
    """

    name = "data-efficient"
    layers = ((32, 5, 5), (64, 5, 5))
    smallest = 25


class WholePatchTorso(PatchTorso):
    """A CNN over patches of 7 by 7, then of 4 by 4: 576 features from all of 84 by 84 pixels.

    It costs as much as the CNN of data-efficient Rainbow, which ignores the last nine rows and
    columns of pixels. It needs at least 28 by 28.
    """

    name = "patches"
    layers = ((32, 7, 7), (64, 4, 4))
    smallest = 28
