"""The ring that holds the newest records: its sizes, its arrays, and where a record lies."""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TERMINATED, TRUNCATED, FIRST, IGNORED = 1, 2, 4, 8
"""Bits of a record's flags."""

MISSING = 128
"""Stands in for the flags of a record outside the window; never stored."""


def whole(name: str, value: object, least: int) -> int:
    """Return `value` as an int of at least `least`; raise ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}: got {value!r}, expected a whole number of at least {least}")
    return int(value)


@dataclass(frozen=True, kw_only=True)
class RingShape:
    """The sizes of a replay. Raises ValueError for sizes that cannot work."""

    capacity: int
    """Transitions that can be sampled at most, over all environments; rounded up to a multiple
    of `environments`."""
    environments: int
    """Environments that step together: N records per vector step."""
    frame_shape: tuple[int, ...]
    """Shape of one frame of one environment."""
    frame_dtype: np.dtype[np.generic]
    """Type of a frame's numbers."""
    stack: int
    """Frames in an observation; 1 means that the observation is the frame itself."""
    slack: int
    """Vector steps that the ring has room for beside those that can be sampled."""

    def __post_init__(self) -> None:
        environments = whole("environments", self.environments, 1)
        window = -(-whole("capacity", self.capacity, 1) // environments)
        _ = whole("stack", self.stack, 1)
        _ = whole("slack", self.slack, 0)
        _ = [whole("frame_shape", size, 1) for size in self.frame_shape]
        if self.frame_dtype.kind not in "buif":
            raise ValueError(f"frame_dtype: got {self.frame_dtype}, expected bool, int or float")
        object.__setattr__(self, "capacity", window * environments)
        self.check_n_step(1)

    def check_n_step(self, n_step: int) -> None:
        """Raise ValueError unless a stack and a window of `n_step` steps fit into the ring."""
        if self.window < self.stack + whole("n_step", n_step, 1):
            raise ValueError(
                f"capacity: got {self.window} vector steps of {self.environments} environments, "
                f"expected at least stack + n_step = {self.stack} + {n_step} vector steps"
            )

    @property
    def window(self) -> int:
        """Vector steps that can be sampled."""
        return self.capacity // self.environments

    @property
    def slots(self) -> int:
        """Vector steps that the ring holds."""
        return self.window + self.slack

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of one observation, (stack, *frame_shape), or `frame_shape` when stack is 1."""
        return (self.stack, *self.frame_shape) if self.stack > 1 else self.frame_shape

    def arrays(self) -> Iterator[tuple[str, tuple[int, ...], np.dtype[np.generic]]]:
        """Yield name, shape (slots, environments, …) and type of each array of the ring."""
        records = (self.slots, self.environments)
        yield "frames", (*records, *self.frame_shape), self.frame_dtype
        yield "action", records, np.dtype("<i4")
        yield "reward", records, np.dtype("<f4")
        yield "flags", records, np.dtype("u1")

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, in memory or on disk."""
        return sum(math.prod(shape) * dtype.itemsize for _, shape, dtype in self.arrays())


class Ring:
    """Time-major arrays (slots, environments, …); vector step t lies in slot t modulo slots.

    The arrays are given by name, as `RingShape.arrays` lists them. `head` counts the vector steps
    written since the beginning; the newest `window` of them can be sampled.
    """

    def __init__(
        self, shape: RingShape, arrays: dict[str, npt.NDArray[np.generic]], head: int = 0
    ) -> None:
        self.shape = shape
        self.head = head
        self._arrays = arrays
        # Plain views, since indexing a np.memmap costs microseconds more each time; and the records
        # in one row, so that one flat index finds a record in every array.
        records = shape.slots * shape.environments
        views = {name: array.view(np.ndarray) for name, array in arrays.items()}
        self.frames = views["frames"].reshape(records, -1)
        self.action = views["action"].reshape(records)
        self.reward = views["reward"].reshape(records)
        self.flags = views["flags"].reshape(records)

    @classmethod
    def in_memory(cls, shape: RingShape) -> "Ring":
        """Allocate the arrays."""
        return cls(shape, {name: np.zeros(size, dtype) for name, size, dtype in shape.arrays()})

    @property
    def low(self) -> int:
        """The oldest vector step that can be sampled."""
        return max(0, self.head - self.shape.window)

    def append(self, records: dict[str, npt.NDArray[np.generic]]) -> None:
        """Write one vector step, each array by its name and (environments, …), over the oldest."""
        slot = self.head % self.shape.slots
        for name, array in self._arrays.items():
            array[slot] = records[name]
        self.head += 1

    def index(
        self, step: npt.NDArray[np.int64], environment: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Return the flat indices of records."""
        return step % self.shape.slots * self.shape.environments + environment

    def flags_between(
        self,
        step_B: npt.NDArray[np.int64],
        environment_B: npt.NDArray[np.int64],
        back: int,
        ahead: int,
    ) -> npt.NDArray[np.uint8]:
        """Return the flags of steps t - back … t + ahead, (B, back + 1 + ahead)."""
        step_BK = step_B[:, None] + np.arange(-back, ahead + 1)
        flags_BK = self.flags[self.index(step_BK, environment_B[:, None])]
        flags_BK[(step_BK < self.low) | (step_BK >= self.head)] = MISSING
        return flags_BK

    def flush(self) -> None:
        """Wait until every changed page is on disk; nothing to do in memory."""
        for array in self._arrays.values():
            if isinstance(array, np.memmap):
                array.flush()

    def fingerprint(self) -> int:
        """Return a checksum of the window.

        It covers every action, reward and flag, and the frames of the oldest and the newest step:
        the oldest is what later steps overwrite first. All frames would be gigabytes to read.
        """
        if self.head == 0:
            return 0
        slots = self.shape.slots
        oldest, newest = self.low % slots, (self.head - 1) % slots
        if oldest <= newest:
            parts = [slice(oldest, newest + 1)]
        else:
            parts = [slice(oldest, None), slice(0, newest + 1)]
        checksum = 0
        for name in ("action", "reward", "flags"):
            for part in parts:
                checksum = zlib.crc32(self._arrays[name][part].data, checksum)
        for slot in (oldest, newest):
            checksum = zlib.crc32(self._arrays["frames"][slot].data, checksum)
        return checksum
