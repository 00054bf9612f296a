"""Gymnasium's spaces: how their observations become arrays, and which actions are accepted."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .sync import as_numbers
from .vector import UnusableEnvironment

if TYPE_CHECKING:
    from gymnasium.spaces import Box, Space

SMALL = 36
"""Images of bytes with at least this many pixels each way stay bytes: the CNN's smallest input."""

_TAKEN = (
    "a Box of one dimension (a vector) or of three (an image), or numbers without images in "
    "Discrete, MultiDiscrete, MultiBinary, Dict or Tuple, which become a vector; "
    "gymnasium.wrappers.FlattenObservation makes a vector of others, TransformObservation picks a "
    "part"
)


@dataclass(frozen=True, slots=True)
class ObservationKind:
    """The way in which observations of a space become vectors, or images with channels first.

    Vectors are float32. Images are uint8 if their space is, and float32 otherwise. Small images of
    bytes from 0 to 255 become floats in 0…1, since torsos for small images do not scale their
    input. Of an image's first and last axis, the shorter one holds the channels; if they are equal,
    the last one does.
    """

    given: tuple[int, ...] | None
    """The shape of the space; None if an observation is not an array."""
    shape: tuple[int, ...]
    """(size,) or (channels, height, width)."""
    dtype: np.dtype[Any]
    """Type of the numbers."""
    channels_last: bool = False
    """Whether images of the space are (height, width, channels)."""
    brightness: bool = False
    """Whether bytes become floats in 0…1."""
    flattened: "Space[Any] | None" = None
    """The space, if its observations are flattened to a vector by Gymnasium."""

    def read(self, seen: object) -> npt.NDArray[Any]:
        """Return one observation as an array; raise Unfit unless it has the shape of its space."""
        if self.flattened is not None:
            from gymnasium.spaces import flatten

            return as_numbers(flatten(self.flattened, seen), self.shape, self.dtype)
        assert self.given is not None, "what is no array is flattened"
        array = as_numbers(seen, self.given, self.dtype)
        if self.brightness:
            array = array / np.float32(255)
        return array.transpose(2, 0, 1) if self.channels_last else array.reshape(self.shape)

    def is_one(self, seen: object) -> bool:
        """Return whether `seen` is one observation rather than a sequence of them."""
        if self.given is None:
            return not isinstance(seen, list)
        return np.ndim(seen) == len(self.given)  # pyright: ignore[reportArgumentType]


def observation_kind(environment_id: str, space: "Space[Any] | None") -> ObservationKind:
    """Return how the observations of a space are read.

    Raises UnusableEnvironment, which names the space, unless observations are vectors, images, or
    numbers that Gymnasium can flatten to a vector.
    """
    from gymnasium.spaces import Box, Dict, Tuple, flatten_space

    if isinstance(space, Box) and math.prod(space.shape) > 0:
        given = space.shape
        if len(given) == 1:
            return ObservationKind(given, given, np.dtype(np.float32))
        if len(given) == 3:
            last = given[2] <= given[0]
            shape = (given[2], *given[:2]) if last else given
            return _image(space, shape, channels_last=last)
        if len(given) == 2 and _is_image(space):  # greyscale
            return _image(space, (1, *given), channels_last=False)
    if space is None or not _is_numbers(space):
        raise UnusableEnvironment(
            f"{environment_id}: observation space: got {_in_one_line(space)}, expected {_TAKEN}"
        )
    shape = flatten_space(space).shape
    assert shape is not None, "numbers become a Box"
    given = None if isinstance(space, Dict | Tuple) else space.shape
    return ObservationKind(given, shape, np.dtype(np.float32), flattened=space)


def action_range(environment_id: str, space: "Space[Any] | None") -> tuple[int, int]:
    """Return first action and number of actions; raise UnusableEnvironment unless Discrete."""
    from gymnasium.spaces import Discrete

    if not isinstance(space, Discrete):
        raise UnusableEnvironment(
            f"{environment_id}: action space: got {_in_one_line(space)}, expected Discrete"
        )
    return int(space.start), int(space.n)


def _image(space: "Box", shape: tuple[int, ...], *, channels_last: bool) -> ObservationKind:
    bytes_ = space.dtype == np.uint8
    small = min(shape[1:]) < SMALL
    brightness = bytes_ and small and bool((space.high == 255).all())
    dtype = np.dtype(np.uint8 if bytes_ and not brightness else np.float32)
    return ObservationKind(
        space.shape, shape, dtype, channels_last=channels_last, brightness=brightness
    )


def _is_image(space: "Space[Any]") -> bool:
    """Return whether a Box holds an image, or several."""
    shape = space.shape or ()
    return len(shape) > 2 or (len(shape) == 2 and space.dtype == np.uint8)


def _is_numbers(space: "Space[Any]") -> bool:
    """Return whether all parts of a space are numbers, and none is an image."""
    from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

    if isinstance(space, Dict | Tuple):
        parts = space.values() if isinstance(space, Dict) else space
        return len(space) > 0 and all(_is_numbers(part) for part in parts)
    if isinstance(space, Box):
        return math.prod(space.shape) > 0 and not _is_image(space)
    return isinstance(space, Discrete | MultiDiscrete | MultiBinary)


def _in_one_line(space: "Space[Any] | None") -> str:
    """Return a space as one line, cut short: a Box prints whole arrays of bounds."""
    line = " ".join(str(space).split())
    return line if len(line) <= 160 else f"{line[:157]}…"
