"""Which spaces of Gymnasium can be played, and how their observations are shown to an agent."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from noisynet.envs.environments import UnusableEnvironment, as_numbers

if TYPE_CHECKING:
    from gymnasium.spaces import Space

TAKEN = (
    "a Box of one dimension (a vector) or of three (an image); "
    "gymnasium.wrappers.FlattenObservation makes a vector of others"
)


@dataclass(frozen=True, slots=True)
class ObservationKind:
    """How observations of one space become arrays: vectors, or images with channels in front.

    Vectors are float32. Images are uint8 where their space says so, and float32 otherwise; of an
    image's first and last axis the shorter holds the channels, the last one if they are equal.
    """

    given: tuple[int, ...]
    """The shape that the space says."""
    shape: tuple[int, ...]
    """(size,) or (channels, height, width)."""
    dtype: np.dtype[Any]
    """Type of the numbers."""
    channels_last: bool
    """Whether the space has (height, width, channels)."""

    def read(self, seen: object) -> npt.NDArray[Any]:
        """Return one observation; raise Unfit unless it has the shape of its space."""
        array = as_numbers(seen, self.given, self.dtype)
        return array.transpose(2, 0, 1) if self.channels_last else array.reshape(self.shape)


def observation_kind(environment_id: str, space: "Space[Any] | None") -> ObservationKind:
    """Return how the observations of a space are read.

    Raises UnusableEnvironment for what is neither a vector nor an image, naming the space.
    """
    from gymnasium.spaces import Box

    if isinstance(space, Box) and math.prod(space.shape) > 0:
        given, bytes_ = space.shape, space.dtype == np.uint8
        if len(given) == 1:
            return ObservationKind(given, given, np.dtype(np.float32), channels_last=False)
        image = np.dtype(np.uint8 if bytes_ else np.float32)
        if len(given) == 3:
            last = given[2] <= given[0]
            shape = (given[2], *given[:2]) if last else given
            return ObservationKind(given, shape, image, channels_last=last)
        if len(given) == 2 and bytes_:  # a picture in grey
            return ObservationKind(given, (1, *given), image, channels_last=False)
    raise UnusableEnvironment(
        f"{environment_id}: observation space: got {_told(space)}, expected {TAKEN}"
    )


def action_range(environment_id: str, space: "Space[Any] | None") -> tuple[int, int]:
    """Return the first action and the number of actions; raise UnusableEnvironment for others."""
    from gymnasium.spaces import Discrete

    if not isinstance(space, Discrete):
        raise UnusableEnvironment(
            f"{environment_id}: action space: got {_told(space)}, expected Discrete"
        )
    return int(space.start), int(space.n)


def _told(space: "Space[Any] | None") -> str:
    """Return a space on one line of bearable length: a Box prints whole arrays of bounds."""
    told = " ".join(str(space).split())
    return told if len(told) <= 160 else f"{told[:157]}…"
