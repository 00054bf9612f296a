"""Transitions from records: which ones can be sampled, uniform draws, and batches of them.

A record is identified by its number, counted from the replay's first: vector step t of environment
i is record t · N + i. Suffixes: B samples, S frames of a stack, N steps of a window, K both.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .batch import Batch
from .nstep import mark_taken, n_step_return
from .ring import FIRST, IGNORED, MISSING, TERMINATED, TRUNCATED, Flags, Integers, Numbers, Ring

CHUNK = 1 << 12  # records that a scan checks at a time
GLANCE = 1 << 6  # the same, for a scan that stops at the first record it finds
_ROUNDS = 8  # of rejection sampling, before the samplable records are listed instead


def mark_samplable(ring: Ring, record_B: Integers, n_step: int) -> Flags:
    """Return which records have a whole stack and a whole window of at most `n_step` steps."""
    back = ring.shape.stack - 1
    flags_BK = ring.flags_between(record_B, back, n_step)
    stack_BS = flags_BK[:, back::-1]
    stack_gap_B = ((stack_BS & MISSING != 0) & _mark_episode(stack_BS)).any(axis=1)

    step_BN = flags_BK[:, back:-1]
    taken_BN = mark_taken(step_BN & (TERMINATED | TRUNCATED) != 0)
    gap_BN = step_BN & (MISSING | IGNORED) != 0
    # A first record inside a window: the episode before it was cut off without an end.
    gap_BN[:, 1:] |= step_BN[:, 1:] & FIRST != 0
    step_gap_B = (gap_BN & taken_BN).any(axis=1)

    row_B, next_B = np.arange(len(record_B)), back + taken_BN.sum(axis=1)
    terminated_B = flags_BK[row_B, next_B - 1] & TERMINATED != 0
    next_gap_B = flags_BK[row_B, next_B] & (MISSING | FIRST) != 0
    return ~stack_gap_B & ~step_gap_B & (terminated_B | ~next_gap_B)


def scan_samplable(ring: Ring, n_step: int, chunk: int = CHUNK) -> Iterator[Integers]:
    """Yield the records that can be sampled, oldest first, in chunks."""
    for start in range(ring.oldest, ring.end, chunk):
        record_B = np.arange(start, min(start + chunk, ring.end))
        yield record_B[mark_samplable(ring, record_B, n_step)]


def draw_samplable(
    ring: Ring, generator: np.random.Generator, samples: int, n_step: int
) -> Integers:
    """Draw records, each uniformly and independently from those that can be sampled.

    Records are drawn, and those that cannot be sampled rejected, for a bounded number of rounds;
    the samples that are then missing are drawn from a list of all records that can be sampled.

    Raises RuntimeError if nothing can be sampled.
    """
    records = ring.end - ring.oldest
    drawn: list[Integers] = []
    for _ in range(_ROUNDS if records else 0):
        # A few more than needed, so that one round is nearly always enough.
        record_B = ring.oldest + generator.integers(records, size=samples + samples // 8 + 4)
        drawn.append(record_B[mark_samplable(ring, record_B, n_step)][:samples])
        samples -= len(drawn[-1])
        if samples == 0:
            break
    else:
        listed = np.concatenate([np.empty(0, np.int64), *scan_samplable(ring, n_step)])
        if len(listed) == 0:
            raise nothing_to_sample(ring, n_step)
        drawn.append(listed[generator.integers(len(listed), size=samples)])
    return np.concatenate(drawn)


def nothing_to_sample(ring: Ring, n_step: int) -> RuntimeError:
    """Return the error for a replay without a transition to sample."""
    return RuntimeError(
        f"replay: none of its {ring.end - ring.oldest} records can be sampled with n_step {n_step} "
        f"and stack {ring.shape.stack}: add more"
    )


def gather_batch(
    ring: Ring,
    record_B: Integers,
    n_step: int,
    discount: float,
    out: Batch[Any] | None = None,
    weights: Numbers | None = None,
) -> Batch[npt.NDArray[Any]]:
    """Return the transitions that begin at the given records, all of which can be sampled.

    The observations are written into those of `out`, if given. Raises ValueError if these have
    another shape or dtype, or are not contiguous.
    """
    sizes, dtype = (len(record_B), *ring.shape.observation_shape), ring.shape.frame_dtype
    if out is None:
        observation_tm1, observation_t = np.empty(sizes, dtype), np.empty(sizes, dtype)
    else:
        observation_tm1, observation_t = out.observation_tm1, out.observation_t
        for buffer in (observation_tm1, observation_t):
            right = buffer.shape == sizes and buffer.dtype == dtype
            if not right or not buffer.flags.c_contiguous:
                raise ValueError(
                    f"out: got observations {buffer.dtype} {buffer.shape}, "
                    f"expected contiguous {dtype} {sizes}"
                )
    next_B, action_B, return_B, discount_B = read_windows(ring, record_B, n_step, discount)
    _stack_frames(ring, record_B, observation_tm1)
    _stack_frames(ring, next_B, observation_t)
    return Batch(
        observation_tm1=observation_tm1,
        action_tm1=action_B,
        return_t=return_B,
        discount_t=discount_B,
        observation_t=observation_t,
        weights=weights,
        indices=record_B,
    )


def read_windows(
    ring: Ring, record_B: Integers, n_step: int, discount: float
) -> tuple[Integers, Integers, Numbers, Numbers]:
    """Return, all (B,), the record after each window, and its first action, return and discount."""
    environments = ring.shape.environments
    index_BN = ring.index(record_B[:, None] + environments * np.arange(n_step))
    flags_BN = ring.flags[index_BN]
    return_B, discount_B, steps_B = n_step_return(
        ring.reward[index_BN], flags_BN & TERMINATED != 0, flags_BN & TRUNCATED != 0, discount
    )
    # After a termination, the next record may not exist yet; the newest stands in.
    newest_B = ring.end - environments + record_B % environments
    next_B = np.minimum(record_B + environments * steps_B, newest_B)
    return next_B, ring.action[index_BN[:, 0]].astype(np.int64), return_B, discount_B


def locate_stack(ring: Ring, record_B: Integers) -> tuple[Integers, Flags]:
    """Return the flat index of each frame of a stack, oldest first, and whether it is empty.

    Both are (B, S). Frames from before the episode's first are empty: zeros replace them.
    """
    stack = ring.shape.stack
    index_BS = ring.index(record_B[:, None] + ring.shape.environments * np.arange(1 - stack, 1))
    newest_first_BS = ring.flags_between(record_B, stack - 1, 0)[:, ::-1]
    return index_BS, ~_mark_episode(newest_first_BS)[:, ::-1]


def _stack_frames(ring: Ring, record_B: Integers, out: npt.NDArray[np.generic]) -> None:
    """Write the observation of each record: its episode's last frames, zeros before the first."""
    index_BS, empty_BS = locate_stack(ring, record_B)
    frames = out.reshape(index_BS.size, -1)
    # All indices are in range; "raise", the default, would go through a buffer.
    _ = ring.frames.take(index_BS.ravel(), axis=0, out=frames, mode="clip")
    frames[empty_BS.ravel()] = 0


def _mark_episode(flags_BS: npt.NDArray[np.uint8]) -> Flags:
    """Mark the frames of a stack, newest first, that belong to the newest one's episode."""
    return mark_taken(flags_BS & FIRST != 0)
