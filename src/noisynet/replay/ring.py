"""The ring that holds the newest records: its sizes, its arrays, and the encoding of records."""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .arguments import check_array, whole

TERMINATED, TRUNCATED, FIRST, IGNORED = 1, 2, 4, 8
"""Bits of a record's flags."""

MISSING = 128
"""Stands in for the flags of a record outside the window; never stored."""

Integers = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class RingShape:
    """The sizes of a replay. Raises ValueError for invalid sizes."""

    capacity: int
    """The most transitions that can be sampled, over all environments; rounded up to a multiple
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
    """Vector steps for which the ring has room beside those that can be sampled."""

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
        """Allocate a ring in memory."""
        return cls(shape, {name: np.zeros(size, dtype) for name, size, dtype in shape.arrays()})

    @property
    def low(self) -> int:
        """The oldest vector step that can be sampled."""
        return max(0, self.head - self.shape.window)

    @property
    def oldest(self) -> int:
        """The number of the oldest record that can be sampled, counted from the first ever."""
        return self.low * self.shape.environments

    @property
    def end(self) -> int:
        """The number that the next record will have."""
        return self.head * self.shape.environments

    def append(self, records: dict[str, npt.NDArray[np.generic]]) -> None:
        """Write one vector step, as `encode_records` returns it, over the oldest one."""
        slot = self.head % self.shape.slots
        for name, array in self._arrays.items():
            array[slot] = records[name]
        self.head += 1

    def index(self, record: Integers) -> Integers:
        """Return the flat indices of records, by their numbers (see `oldest`)."""
        return record % len(self.flags)

    def flags_between(self, record_B: Integers, back: int, ahead: int) -> npt.NDArray[np.uint8]:
        """Return the flags from `back` steps before to `ahead` steps after each record, (B, K)."""
        record_BK = record_B[:, None] + self.shape.environments * np.arange(-back, ahead + 1)
        flags_BK = self.flags[self.index(record_BK)]
        flags_BK[(record_BK < self.oldest) | (record_BK >= self.end)] = MISSING
        return flags_BK

    def flush(self) -> None:
        """Wait until every changed page is on disk; do nothing for a ring in memory."""
        for array in self._arrays.values():
            if isinstance(array, np.memmap):
                array.flush()

    def fingerprint(self) -> int:
        """Return a checksum of the window.

        It covers every action, reward and flag, and the frames of the oldest step, which later
        steps overwrite first, and of the newest. All frames would be gigabytes to read.
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


def encode_records(
    shape: RingShape,
    *,
    frame: npt.NDArray[np.generic],
    action: npt.NDArray[np.integer],
    reward: npt.NDArray[np.number],
    **flags: npt.NDArray[np.bool_],
) -> dict[str, npt.NDArray[np.generic]]:
    """Check one vector step and return it as the arrays that `Ring.append` takes.

    Raises ValueError for a wrong shape or type, an action beyond int32, or a reward beyond float32.
    """
    records = (shape.environments,)
    check_array("frame", frame, (*records, *shape.frame_shape), "buif")
    if frame.dtype != shape.frame_dtype:
        raise ValueError(f"frame: got {frame.dtype}, expected {shape.frame_dtype}")
    check_array("action", action, records, "iu")
    stored_action = action.astype(np.int32)
    if (stored_action != action).any():
        raise ValueError(f"action: got {action.tolist()}, expected int32 numbers")
    check_array("reward", reward, records, "iuf")
    with np.errstate(over="ignore"):  # the next lines report an overflow
        stored_reward = reward.astype(np.float32)
    if not np.isfinite(stored_reward).all():
        raise ValueError(f"reward: got {reward.tolist()}, expected finite float32 numbers")
    bits = np.zeros(records, np.uint8)
    for name, bit in (
        ("terminated", TERMINATED),
        ("truncated", TRUNCATED),
        ("first", FIRST),
        ("ignored", IGNORED),
    ):
        check_array(name, flags[name], records, "b")
        bits[flags[name]] |= bit
    return {"frames": frame, "action": stored_action, "reward": stored_reward, "flags": bits}


def slack_for(*, capacity: int, environments: int, commit_every: int) -> int:
    """Return the slack of a replay in files that is committed every `commit_every` records.

    It is the number of vector steps between two commits plus a quarter, but at most as many as can
    be sampled; then 16 more. So a long interval between commits does not fill the disk: the replay
    asks for a commit when it needs one (`must_commit`).
    """
    wanted = math.ceil(commit_every / environments)
    window = math.ceil(capacity / environments)
    return min(wanted + wanted // 4, window) + 16
