"""From records to transitions: which can be sampled, and the batch they make.

Suffixes: B samples, S frames of a stack, N steps of a window, K both.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .batch import Batch
from .nstep import mark_taken, n_step_return
from .ring import FIRST, IGNORED, MISSING, TERMINATED, TRUNCATED, Ring

CHUNK = 1 << 12  # records that a scan looks at in one go
GLANCE = 1 << 6  # the same, for a scan that stops at the first it finds
_ROUNDS = 8  # of rejection sampling, before the samplable records are listed instead


def mark_samplable(
    ring: Ring, step_B: npt.NDArray[np.int64], environment_B: npt.NDArray[np.int64], n_step: int
) -> npt.NDArray[np.bool_]:
    """Return which records have a whole stack and a whole window of at most `n_step` steps."""
    back = ring.shape.stack - 1
    flags_BK = ring.flags_between(step_B, environment_B, back, n_step)
    stack_BS = flags_BK[:, back::-1]
    stack_gap_B = ((stack_BS & MISSING != 0) & _mark_episode(stack_BS)).any(axis=1)

    step_BN = flags_BK[:, back:-1]
    taken_BN = mark_taken(step_BN & (TERMINATED | TRUNCATED) != 0)
    gap_BN = step_BN & (MISSING | IGNORED) != 0
    # A first record inside a window: the episode before it was cut off without an end.
    gap_BN[:, 1:] |= step_BN[:, 1:] & FIRST != 0
    step_gap_B = (gap_BN & taken_BN).any(axis=1)

    row_B, next_B = np.arange(len(step_B)), back + taken_BN.sum(axis=1)
    terminated_B = flags_BK[row_B, next_B - 1] & TERMINATED != 0
    next_gap_B = flags_BK[row_B, next_B] & (MISSING | FIRST) != 0
    return ~stack_gap_B & ~step_gap_B & (terminated_B | ~next_gap_B)


def scan_samplable(
    ring: Ring, n_step: int, chunk: int = CHUNK
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield (step, environment) of the records that can be sampled, oldest first, in chunks."""
    records = (ring.head - ring.low) * ring.shape.environments
    for start in range(0, records, chunk):
        step_B, environment_B = locate(ring, np.arange(start, min(start + chunk, records)))
        valid_B = mark_samplable(ring, step_B, environment_B, n_step)
        yield step_B[valid_B], environment_B[valid_B]


def locate(
    ring: Ring, record_B: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Turn numbers of records, counted from the oldest of the window, into (step, environment)."""
    age_B, environment_B = np.divmod(record_B, ring.shape.environments)
    return ring.low + age_B, environment_B


def draw_samplable(
    ring: Ring, generator: np.random.Generator, samples: int, n_step: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw (step, environment), each uniformly and independently from what can be sampled.

    Records are drawn and those that cannot be sampled rejected, for a bounded number of rounds;
    what is then still missing is picked from a list of all that can.

    Raises RuntimeError if nothing can be sampled.
    """
    records = (ring.head - ring.low) * ring.shape.environments
    drawn: list[npt.NDArray[np.int64]] = []
    for _ in range(_ROUNDS if records else 0):
        # A few more than needed, so that one round is nearly always enough.
        record_B = generator.integers(records, size=samples + samples // 8 + 4)
        pair_2B = np.stack(locate(ring, record_B))
        valid_B = mark_samplable(ring, pair_2B[0], pair_2B[1], n_step)
        drawn.append(pair_2B[:, valid_B][:, :samples])
        samples -= drawn[-1].shape[1]
        if samples == 0:
            break
    else:
        chunks = [np.stack(chunk) for chunk in scan_samplable(ring, n_step)]
        listed_2B = np.concatenate([np.empty((2, 0), np.int64), *chunks], axis=1)
        if listed_2B.shape[1] == 0:
            raise nothing_to_sample(ring, n_step)
        drawn.append(listed_2B[:, generator.integers(listed_2B.shape[1], size=samples)])
    step_B, environment_B = np.concatenate(drawn, axis=1)
    return step_B, environment_B


def nothing_to_sample(ring: Ring, n_step: int) -> RuntimeError:
    """Return the error of a replay that has no transition yet."""
    records = (ring.head - ring.low) * ring.shape.environments
    return RuntimeError(
        f"replay: none of its {records} records can be sampled with n_step {n_step} "
        f"and stack {ring.shape.stack}: add more"
    )


def read_windows(
    ring: Ring,
    step_B: npt.NDArray[np.int64],
    environment_B: npt.NDArray[np.int64],
    n_step: int,
    discount: float,
) -> tuple[
    npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]
]:
    """Return the step after each window, and its action, return and discount, all (B,)."""
    index_BN = ring.index(step_B[:, None] + np.arange(n_step), environment_B[:, None])
    flags_BN = ring.flags[index_BN]
    return_B, discount_B, steps_B = n_step_return(
        ring.reward[index_BN], flags_BN & TERMINATED != 0, flags_BN & TRUNCATED != 0, discount
    )
    # After a termination the next record may not be there yet: the newest stands in.
    next_B = np.minimum(step_B + steps_B, ring.head - 1)
    return next_B, ring.action[index_BN[:, 0]].astype(np.int64), return_B, discount_B


def locate_stack(
    ring: Ring, step_B: npt.NDArray[np.int64], environment_B: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the flat index of each frame of a stack, oldest first, and whether it is empty.

    Both are (B, S). Frames from before the episode's first are empty: zeros stand for them.
    """
    stack = ring.shape.stack
    index_BS = ring.index(step_B[:, None] + np.arange(1 - stack, 1), environment_B[:, None])
    newest_first_BS = ring.flags_between(step_B, environment_B, stack - 1, 0)[:, ::-1]
    return index_BS, ~_mark_episode(newest_first_BS)[:, ::-1]


def gather_batch(
    ring: Ring,
    step_B: npt.NDArray[np.int64],
    environment_B: npt.NDArray[np.int64],
    n_step: int,
    discount: float,
    out: Batch[Any] | None = None,
    weights: npt.NDArray[np.float32] | None = None,
) -> Batch[npt.NDArray[Any]]:
    """Return the transitions that begin at the given records, all of which can be sampled.

    The observations are written into those of `out`, if given. Raises ValueError if its batch size
    or its replay is another.
    """
    shape = ring.shape
    sizes = (len(step_B), *shape.observation_shape)
    if out is None:
        observation_tm1, observation_t = (np.empty(sizes, shape.frame_dtype) for _ in range(2))
    else:
        observation_tm1, observation_t = out.observation_tm1, out.observation_t
        for buffer in (observation_tm1, observation_t):
            right = buffer.shape == sizes and buffer.dtype == shape.frame_dtype
            if not right or not buffer.flags.c_contiguous:
                raise ValueError(
                    f"out: got observations {buffer.dtype} {buffer.shape}, "
                    f"expected contiguous {shape.frame_dtype} {sizes}"
                )
    next_B, action_B, return_B, discount_B = read_windows(
        ring, step_B, environment_B, n_step, discount
    )
    _stack_frames(ring, step_B, environment_B, observation_tm1)
    _stack_frames(ring, next_B, environment_B, observation_t)
    return Batch(
        observation_tm1=observation_tm1,
        action_tm1=action_B,
        return_t=return_B,
        discount_t=discount_B,
        observation_t=observation_t,
        weights=weights,
        indices=step_B * shape.environments + environment_B,
    )


def _stack_frames(
    ring: Ring,
    step_B: npt.NDArray[np.int64],
    environment_B: npt.NDArray[np.int64],
    out: npt.NDArray[np.generic],
) -> None:
    """Write the observation of each record: its episode's last frames, zeros before the first."""
    index_BS, empty_BS = locate_stack(ring, step_B, environment_B)
    frames = out.reshape(index_BS.size, -1)
    # All indices are in range; "raise", the default, would go through a buffer.
    _ = ring.frames.take(index_BS.ravel(), axis=0, out=frames, mode="clip")
    frames[empty_BS.ravel()] = 0


def _mark_episode(flags_BS: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Mark the frames of a stack, newest first, that belong to the newest's episode."""
    return mark_taken(flags_BS & FIRST != 0)
