"""Torsos of images: convolutions, of stacked frames and of MinAtar's small images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class ImageTorso(nn.Module):
    """Images to features by convolutions: (…, channels, height, width) to (…, features)."""

    convolutions: nn.Sequential
    observation_shape: tuple[int, ...]
    features: int

    def prepare(self, observation: Tensor) -> Tensor:
        """Return the images as the convolutions take them, floats; `forward` does it by itself."""
        raise NotImplementedError

    def forward(self, observation: Tensor) -> Tensor:
        """Return features (…, features)."""
        observation = self.prepare(observation)
        leading = observation.shape[:-3]
        images = observation.reshape(-1, *self.observation_shape)
        return self.convolutions(images).reshape(*leading, self.features)


class FramesTorso(ImageTorso):
    """Stacked frames to features: uint8, or what `prepare` made of it, to (…, features).

    A standardised one shows its convolutions how a frame differs from the mean frame, once
    `measure_frames` has seen some: in most games the picture hardly changes, and only a few pixels
    move.
    """

    name: str
    smallest: int
    """Pixels that a frame must have each way."""

    frame_mean: Tensor
    """(stack, height, width), brightness in 0…1; of a standardised torso."""
    frame_deviation: Tensor
    """(1,), the root of the mean over pixels of their variances."""

    def _check_shape(self, observation_shape: Sequence[int]) -> None:
        if len(observation_shape) != 3 or min(observation_shape[1:]) < self.smallest:
            raise ValueError(
                f"{self.name} torso: got observations of shape {tuple(observation_shape)}, "
                f"expected (stack, height, width) with at least {self.smallest} pixels each way"
            )

    def _take(
        self,
        observation_shape: Sequence[int],
        modules: Sequence[nn.Module],
        *,
        standardised: bool,
    ) -> None:
        """Take the modules of the convolutions, for observations of (stack, height, width)."""
        self.observation_shape = tuple(observation_shape)
        self.convolutions = nn.Sequential(*modules, nn.Flatten())
        for parameter in self.convolutions.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            probe = self.convolutions(torch.zeros(1, *observation_shape))
        self.features = int(probe.shape[-1])
        self.standardised = standardised
        if standardised:
            stack, height, width = observation_shape
            # Channels last in memory, as frames are when it is taken from them.
            self.register_buffer("frame_mean", torch.zeros(height, width, stack).movedim(-1, 0))
            self.register_buffer("frame_deviation", torch.ones(1))

    @torch.no_grad()
    def measure_frames(self, frames: Tensor) -> None:
        """Standardise from now on by the mean and the deviation of these frames, uint8.

        Their shape is (N, 1, height, width) where a stack is of frames of one kind, or (N, stack,
        height, width) where its planes are different things, such as colours. The deviation is one
        number for all pixels: a pixel that moves much still shows more than one that hardly does.
        Raises ValueError for a torso that is not standardised, for other frames, and for frames
        that are all the same.
        """
        if not self.standardised:
            raise ValueError("measure_frames: got a torso that takes frames as they are")
        stack, height, width = self.observation_shape
        kinds = [(1, height, width), (stack, height, width)]
        if frames.shape[1:] not in kinds or not len(frames) or frames.dtype != torch.uint8:
            raise ValueError(
                f"measure_frames: got {tuple(frames.shape)} of {frames.dtype}, expected "
                f"(N, 1 or {stack}, {height}, {width}) of uint8"
            )
        # Whole numbers, whose sums are exact and do not depend on the order.
        mean = frames.sum(0, dtype=torch.int64).double() / len(frames)
        squares = torch.zeros_like(frames[0], dtype=torch.int64)
        for some in frames.split(256):
            squares += some.to(torch.int32).square().sum(0)
        variance = squares.double() / len(frames) - mean.square()
        deviation = variance.mean().sqrt()
        if not deviation > 0:
            raise ValueError("measure_frames: got frames that are all the same")
        self.frame_mean.copy_(mean / 255)
        self.frame_deviation.copy_(deviation / 255)

    def prepare(self, observation: Tensor) -> Tensor:
        """Turn uint8 frames (…, stack, height, width) into floats, channels last.

        They are brightness in 0…1; of a standardised torso its distance from the mean frame in
        deviations, at most 5 either way (the bound of arXiv 1810.12894, §2.4). `forward` does it
        by itself; to show the same frames to two networks, prepare them once. Floats are returned
        as they are.
        """
        if observation.dtype != torch.uint8:
            return observation
        # Bytes are moved first and grow to floats then, which moves less memory out of order.
        return self._floats(whole_pixels(observation).view(torch.uint8)).movedim(-1, -3)

    def _floats(self, bytes_: Tensor, cut: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Turn bytes (…, height, width, stack), or what `cut` made of them, into floats."""
        dtype = dtype_of_products(bytes_)
        if not self.standardised:
            return bytes_.to(dtype).div_(255)
        # In float32 whatever the products are in: small differences of large numbers. The whole
        # batch is walked as seldom as can be, one multiplication and one subtraction.
        deviation = self.frame_deviation.squeeze(0)
        mean = self.frame_mean.movedim(0, -1) / deviation
        mean = mean if cut is None else cut(mean)
        # A number without dimensions: one that is broadcast is multiplied by half as fast.
        distance = bytes_.to(torch.float32).mul_(1 / (255 * deviation))
        return distance.sub_(mean).clamp_(-5, 5).to(dtype)


class StridedTorso(FramesTorso):
    """Stacked frames to features, by convolutions without padding, each with a ReLU after it.

    With `layer_norm` each convolution is normalised before its ReLU, over all that it gives for an
    image; without gain and bias, since the layers beside it have both.
    """

    # Of each layer: filters, size, stride.
    layers: tuple[tuple[int, int, int], ...]

    def __init__(
        self,
        observation_shape: Sequence[int],
        *,
        standardised: bool = False,
        layer_norm: bool = False,
    ) -> None:
        """Build the convolutions for observations of (stack, height, width)."""
        super().__init__()
        self._check_shape(observation_shape)
        modules: list[nn.Module] = []
        channels = observation_shape[0]
        for filters, size, stride in self.layers:
            modules.append(nn.Conv2d(channels, filters, size, stride=stride))
            modules += [normalised_image(filters)] if layer_norm else []
            modules.append(nn.ReLU())
            channels = filters
        self._take(observation_shape, modules, standardised=standardised)


class NatureTorso(StridedTorso):
    """The CNN of Mnih et al. 2015: 3136 features from 84 by 84 pixels; from 36 pixels up."""

    name = "nature"
    layers = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
    smallest = 36


class FirstDQNTorso(StridedTorso):
    """The CNN of the first DQN: 2592 features from 84 by 84 pixels; from 20 pixels up.

    Mnih et al. 2013, arXiv 1312.5602, §4.1. Its products are two fifths of the Nature CNN's.
    """

    name = "dqn2013"
    layers = ((16, 8, 4), (32, 4, 2))
    smallest = 20


class MinAtarTorso(ImageTorso):
    """A small image to features, by the one convolution of MinAtar's DQN.

    Sixteen 3 × 3 filters of stride 1 and a ReLU (Young and Tian 2019, arXiv 1903.03176; the hidden
    layer of 128 after it is the head's). Input (…, channels, height, width), output
    (…, 16 (height - 2) (width - 2)): 1024 for MinAtar's 10 by 10. The numbers are taken as they
    are, uint8 included: the points of small images are symbols, not brightness.
    """

    def __init__(self, observation_shape: Sequence[int], *, layer_norm: bool = False) -> None:
        """Build the convolution for observations of (channels, height, width).

        With `layer_norm` it is normalised before the ReLU, over all that it gives for an image.
        """
        super().__init__()
        if len(observation_shape) != 3 or min(observation_shape[1:]) < 3:
            raise ValueError(
                f"minatar torso: got observations of shape {tuple(observation_shape)}, expected "
                "(channels, height, width) with at least 3 pixels each way"
            )
        self.observation_shape = tuple(observation_shape)
        channels, height, width = observation_shape
        norm = [normalised_image(16)] if layer_norm else []
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, 16, 3), *norm, nn.ReLU(), nn.Flatten()
        )
        self.features = 16 * (height - 2) * (width - 2)

    def prepare(self, observation: Tensor) -> Tensor:
        """Turn whole numbers into floats; `forward` does it by itself."""
        if observation.is_floating_point():
            return observation
        return observation.to(dtype_of_products(observation))


def whole_pixels(frames: Tensor) -> Tensor:
    """Return uint8 frames (…, stack, height, width) with what a pixel has side by side.

    That is (…, height, width, stack), as bytes. A stack of four is one whole number of 32 bits a
    pixel, (…, height, width, 1), which is made and moved faster; `view(torch.uint8)` shows its
    bytes.
    """
    planes = frames.unbind(-3)
    if len(planes) != 4 or sys.byteorder != "little":
        return torch.stack(planes, -1)
    pixels = planes[3].to(torch.int32)
    for plane in planes[2::-1]:
        pixels = pixels.bitwise_left_shift_(8).bitwise_or_(plane)
    return pixels.unsqueeze(-1)


def normalised_image(channels: int) -> nn.GroupNorm:
    """Build a LayerNorm over all that a convolution gives for an image, without gain and bias."""
    return nn.GroupNorm(1, channels, affine=False)


def dtype_of_products(observation: Tensor) -> torch.dtype:
    """Return the type that whole numbers become: autocast's where it is on."""
    device = observation.device.type
    autocast = torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if autocast else torch.float32
