"""Torsos for images: convolutions over stacked frames, and over MinAtar's small images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class ImageTorso(nn.Module):
    """A torso of convolutions: images (…, channels, height, width) to features (…, features)."""

    convolutions: nn.Sequential
    observation_shape: tuple[int, ...]
    features: int

    def prepare(self, observation: Tensor) -> Tensor:
        """Return the floats that the convolutions take; `forward` calls this itself."""
        raise NotImplementedError

    def forward(self, observation: Tensor) -> Tensor:
        """Return features (…, features)."""
        observation = self.prepare(observation)
        leading = observation.shape[:-3]
        images = observation.reshape(-1, *self.observation_shape)
        return self.convolutions(images).reshape(*leading, self.features)


class FramesTorso(ImageTorso):
    """A torso for stacked frames: uint8, or the output of `prepare`, to features (…, features).

    Once `measure_frames` has been called, a standardised torso gives its convolutions the
    difference between a frame and the mean frame: in most games, only a few pixels of the picture
    ever change.
    """

    name: str
    smallest: int
    """Least height and width of a frame, in pixels."""

    frame_mean: Tensor
    """Mean frame (stack, height, width), brightness in 0…1; only in a standardised torso."""
    frame_deviation: Tensor
    """(1,), the square root of the mean variance of a pixel; only in a standardised torso."""

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
        """Build the convolutions from modules, for observations of (stack, height, width)."""
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
            # Channels last in memory, as are the frames from which it is subtracted.
            self.register_buffer("frame_mean", torch.zeros(height, width, stack).movedim(-1, 0))
            self.register_buffer("frame_deviation", torch.ones(1))

    @torch.no_grad()
    def measure_frames(self, frames: Tensor) -> None:
        """Measure the mean and the deviation by which frames are standardised from now on.

        `frames` are uint8, of shape (N, 1, height, width) if a stack holds frames of one kind, or
        (N, stack, height, width) if its planes are different things, such as colours. The deviation
        is one number for all pixels, so a pixel that changes much still stands out from one that
        hardly does. Raises ValueError for a torso that is not standardised, for frames of another
        shape or dtype, and for frames that are all the same.
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
        # Sums of integers are exact, so they do not depend on the order of the frames.
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
        """Turn uint8 frames (…, stack, height, width) into floats, channels last in memory.

        The floats are brightness in 0…1 or, in a standardised torso, the distance from the mean
        frame in deviations, clipped to ±5 (as in arXiv 1810.12894, §2.4). `forward` calls this
        itself; if two networks see the same frames, prepare them once for both. Floats are returned
        unchanged.
        """
        if observation.dtype != torch.uint8:
            return observation
        # Moving bytes before they grow to floats copies less memory out of order.
        return self._floats(whole_pixels(observation).view(torch.uint8)).movedim(-1, -3)

    def _floats(self, bytes_: Tensor, cut: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Turn bytes (…, height, width, stack) into floats; `cut` cuts the mean as it cut them."""
        dtype = dtype_of_products(bytes_)
        if not self.standardised:
            return bytes_.to(dtype).div_(255)
        # In float32, whatever the dtype of the products: small differences of large numbers. One
        # multiplication and one subtraction make as few passes over the batch as possible.
        deviation = self.frame_deviation.squeeze(0)
        mean = self.frame_mean.movedim(0, -1) / deviation
        mean = mean if cut is None else cut(mean)
        # `deviation` has no dimensions: a tensor that is broadcast multiplies half as fast.
        distance = bytes_.to(torch.float32).mul_(1 / (255 * deviation))
        return distance.sub_(mean).clamp_(-5, 5).to(dtype)


class StridedTorso(FramesTorso):
    """A torso for stacked frames: convolutions without padding, each followed by a ReLU.

    With `layer_norm`, the output of each convolution is normalised over a whole image before its
    ReLU, without gain and bias, since the neighbouring layers have both.
    """

    # For each layer: number of filters, their size, their stride.
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
    """The CNN of Mnih et al. 2015: 3136 features from 84 by 84 pixels; needs at least 36 by 36."""

    name = "nature"
    layers = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
    smallest = 36


class FirstDQNTorso(StridedTorso):
    """The CNN of the first DQN: 2592 features from 84 by 84 pixels; needs at least 20 by 20.

    Mnih et al. 2013, arXiv 1312.5602, §4.1. It takes three tenths of the Nature CNN's
    multiplications.
    """

    name = "dqn2013"
    layers = ((16, 8, 4), (32, 4, 2))
    smallest = 20


class MinAtarTorso(ImageTorso):
    """A torso for small images: the only convolution of MinAtar's DQN.

    It has sixteen 3 × 3 filters of stride 1 and a ReLU (Young and Tian 2019, arXiv 1903.03176; the
    hidden layer of 128 that follows there belongs to the head). Input (…, channels, height, width),
    output (…, 16 (height - 2) (width - 2)): 1024 features for MinAtar's 10 by 10. Values are not
    scaled, not even uint8: the points of small images are symbols, not brightness.
    """

    def __init__(self, observation_shape: Sequence[int], *, layer_norm: bool = False) -> None:
        """Build the convolution for observations of (channels, height, width).

        With `layer_norm`, its output is normalised over a whole image before the ReLU.
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
        """Turn integers into floats; `forward` calls this itself."""
        return as_floats(observation)


def whole_pixels(frames: Tensor) -> Tensor:
    """Return uint8 frames (…, stack, height, width) with all values of a pixel side by side.

    The result is bytes (…, height, width, stack). A stack of four becomes one 32-bit integer for
    each pixel, (…, height, width, 1), which is faster to make and to move; `view(torch.uint8)`
    gives its bytes.
    """
    planes = frames.unbind(-3)
    if len(planes) != 4 or sys.byteorder != "little":
        return torch.stack(planes, -1)
    pixels = planes[3].to(torch.int32)
    for plane in planes[2::-1]:
        pixels = pixels.bitwise_left_shift_(8).bitwise_or_(plane)
    return pixels.unsqueeze(-1)


def normalised_image(channels: int) -> nn.GroupNorm:
    """Build a LayerNorm over a convolution's output for a whole image, without gain and bias."""
    return nn.GroupNorm(1, channels, affine=False)


def is_large_image(shape: Sequence[int]) -> bool:
    """Return whether observations are images that the Nature CNN can take, whose bytes are pixels.

    The bytes of smaller images are symbols, as in MinAtar.
    """
    return len(shape) == 3 and min(shape[1:]) >= NatureTorso.smallest


def as_floats(observation: Tensor) -> Tensor:
    """Return integers as floats of the same value, and floats as they are."""
    if observation.is_floating_point():
        return observation
    return observation.to(dtype_of_products(observation))


def dtype_of_products(observation: Tensor) -> torch.dtype:
    """Return the dtype to which integers are converted: autocast's if it is on, else float32."""
    device = observation.device.type
    autocast = torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if autocast else torch.float32
