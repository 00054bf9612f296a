"""What turns an observation into features: no noise here, and none that needs any."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class FramesTorso(nn.Module):
    """Turn stacked frames into features with convolutions of no padding, each with a ReLU after it.

    Input (…, stack, height, width), uint8 or what `prepare` made of it; output (…, features).
    """

    name: str
    # Of each layer: filters, size, stride.
    layers: tuple[tuple[int, int, int], ...]
    smallest: int

    def __init__(self, observation_shape: Sequence[int]) -> None:
        """Build the convolutions for observations of (stack, height, width)."""
        super().__init__()
        if len(observation_shape) != 3 or min(observation_shape[1:]) < self.smallest:
            raise ValueError(
                f"{self.name} torso: got observations of shape {tuple(observation_shape)}, "
                f"expected (stack, height, width) with at least {self.smallest} pixels each way"
            )
        self.observation_shape = tuple(observation_shape)
        modules: list[nn.Module] = []
        channels = observation_shape[0]
        for filters, size, stride in self.layers:
            modules += [nn.Conv2d(channels, filters, size, stride=stride), nn.ReLU()]
            channels = filters
        self.convolutions = nn.Sequential(*modules, nn.Flatten())
        for parameter in self.convolutions.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            probe = self.convolutions(torch.zeros(1, *observation_shape))
        self.features = int(probe.shape[-1])

    def prepare(self, observation: Tensor) -> Tensor:
        """Turn uint8 frames (…, stack, height, width) into floats in 0…1, channels last.

        `forward` does it by itself; who shows the same frames to two networks does it once. Frames
        that are floats already are left as they are.
        """
        if observation.dtype != torch.uint8:
            return observation
        dtype = _dtype_of_products(observation)
        # Bytes are moved first and grow to floats then, which moves less memory out of order.
        channels_last = torch.stack(observation.unbind(-3), -1)
        return channels_last.to(dtype).div_(255).movedim(-1, -3)

    def forward(self, observation: Tensor) -> Tensor:
        """Give features (…, features)."""
        observation = self.prepare(observation)
        leading = observation.shape[:-3]
        frames = observation.reshape(-1, *self.observation_shape)
        return self.convolutions(frames).reshape(*leading, self.features)


class NatureTorso(FramesTorso):
    """The CNN of Mnih et al. 2015: 3136 features from 84 by 84 pixels; from 36 pixels up."""

    name = "nature"
    layers = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
    smallest = 36


class FirstDQNTorso(FramesTorso):
    """The CNN of the first DQN: 2592 features from 84 by 84 pixels; from 20 pixels up.

    Mnih et al. 2013, arXiv 1312.5602, §4.1. Its products are two fifths of the Nature CNN's.
    """

    name = "dqn2013"
    layers = ((16, 8, 4), (32, 4, 2))
    smallest = 20


class DataEfficientTorso(FramesTorso):
    """The CNN of data-efficient Rainbow: 576 features from 84 by 84 pixels; from 25 pixels up.

    Van Hasselt, Hessel and Aslanides 2019, arXiv 1906.05243. Filters as wide as their strides: its
    products are a seventh of the Nature CNN's, and the head after it is a fifth.
    """

    name = "data-efficient"
    layers = ((32, 5, 5), (64, 5, 5))
    smallest = 25


class MinAtarTorso(nn.Module):
    """Turn a small image into features with the one convolution of MinAtar's DQN.

    Sixteen 3 × 3 filters of stride 1 and a ReLU (Young and Tian 2019, arXiv 1903.03176; the hidden
    layer of 128 after it is the head's). Input (…, channels, height, width), output
    (…, 16 (height - 2) (width - 2)): 1024 for MinAtar's 10 by 10. The numbers are taken as they
    are, uint8 included: the points of small images are symbols, not brightness.
    """

    def __init__(self, observation_shape: Sequence[int]) -> None:
        """Build the convolution for observations of (channels, height, width)."""
        super().__init__()
        if len(observation_shape) != 3 or min(observation_shape[1:]) < 3:
            raise ValueError(
                f"minatar torso: got observations of shape {tuple(observation_shape)}, expected "
                "(channels, height, width) with at least 3 pixels each way"
            )
        self.observation_shape = tuple(observation_shape)
        channels, height, width = observation_shape
        self.convolutions = nn.Sequential(nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.Flatten())
        self.features = 16 * (height - 2) * (width - 2)

    def prepare(self, observation: Tensor) -> Tensor:
        """Turn whole numbers into floats; `forward` does it by itself."""
        if observation.is_floating_point():
            return observation
        return observation.to(_dtype_of_products(observation))

    def forward(self, observation: Tensor) -> Tensor:
        """Give features (…, features)."""
        observation = self.prepare(observation)
        leading = observation.shape[:-3]
        frames = observation.reshape(-1, *self.observation_shape)
        return self.convolutions(frames).reshape(*leading, self.features)


class MLPTorso(nn.Module):
    """Turn a vector into features with plain hidden layers, each with a ReLU after it.

    Input (…, size); output (…, features), the size of the last hidden layer, or of the input where
    there is none.
    """

    def __init__(self, observation_shape: Sequence[int], hidden: Sequence[int]) -> None:
        """Build hidden layers of the given sizes for observations of (size,)."""
        super().__init__()
        if len(observation_shape) != 1:
            raise ValueError(
                f"mlp torso: got observations of shape {tuple(observation_shape)}, expected (size,)"
            )
        sizes = [observation_shape[0], *hidden]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.features = sizes[-1]

    def prepare(self, observation: Tensor) -> Tensor:
        """Leave the vector as it is."""
        return observation

    def forward(self, observation: Tensor) -> Tensor:
        """Give features (…, features)."""
        return self.layers(observation)


Torso = FramesTorso | MinAtarTorso | MLPTorso


def make_torso(kind: str, observation_shape: Sequence[int], hidden: Sequence[int]) -> Torso:
    """Build the torso of a name; "auto" goes by the observation's shape.

    Vectors get "mlp", images "nature" from 36 pixels each way up, and "minatar" below.
    """
    if kind == "auto":
        kind = "mlp"
        if len(observation_shape) == 3:
            kind = "nature" if min(observation_shape[1:]) >= 36 else "minatar"
    for frames_torso in (NatureTorso, FirstDQNTorso, DataEfficientTorso):
        if kind == frames_torso.name:
            return frames_torso(observation_shape)
    if kind == "minatar":
        return MinAtarTorso(observation_shape)
    return MLPTorso(observation_shape, hidden)


def _dtype_of_products(observation: Tensor) -> torch.dtype:
    """Give the type that whole numbers become: autocast's where it is on."""
    device = observation.device.type
    autocast = torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if autocast else torch.float32
