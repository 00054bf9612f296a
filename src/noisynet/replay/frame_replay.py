"""A replay that stores each frame once; it stacks frames and sums rewards when it samples."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from .arguments import check_fraction, whole
from .batch import Batch
from .commit import PrioritySnapshots, create_ring, read_commit, ring_state
from .priorities import PrioritisedSampler, PrioritySettings, importance_weights
from .ring import Integers, Numbers, Ring, RingShape, encode_records
from .sampling import GLANCE, draw_samplable, gather_batch, scan_samplable


class FrameReplay:
    """A replay of the newest records of N environments that step together, in NEXT_STEP autoreset.

    Record t of an environment holds the newest frame of observation o_t, the action a_t, the
    reward r_{t+1}, whether t+1 is `terminated` or `truncated`, and two flags of t itself:

    - `first`: o_t begins an episode. Its stack has zeros for the earlier frames, and no later stack
      reaches back past it.
    - `ignored`: the episode had ended, a_t was ignored, the environment was reset. Never sampled,
      but its frame is the last observation of the episode, which a truncation bootstraps from.

    `terminated` ends bootstrapping and the window of steps, not the stack: after a lost life the
    next record is not `first`, and is sampled like any other. A record can be sampled when its
    whole stack, and all it needs of the next n steps, lie among the newest `capacity` records. An
    episode that is cut off (a `first` record follows without an end, as after a restart) yields no
    transition across the cut.

    With a `folder`, the ring lives in files there, and `commit` saves a state at which the replay
    can be reopened; the `slack` keeps what the commit needs from being overwritten until the next
    one. A replay in memory cannot be committed, and allocates no slack. Samples are the same either
    way. It is not safe to use a replay from several threads at once.

    Args:
        capacity: the most transitions that can be sampled, over all environments; rounded up to a
            multiple of `environments`.
        environments: N.
        frame_shape: shape of one frame of one environment.
        frame_dtype: type of a frame's numbers.
        stack: frames in an observation; 1 if the observation is the frame itself, such as a vector.
        slack: vector steps that can be added after a commit, at least 1 with a folder; `slack_for`
            computes it.
        folder: where the files go, created if missing; None to keep the ring in memory.
        seed: of the generator (PCG64) that samples.
        priority: settings for draws by priority; None to draw uniformly. Priorities take 8 more
            bytes per record in memory, and 16 on disk.

    Raises:
        ValueError: an invalid size.
        FileExistsError: the folder holds a ring already.
        OSError: the disk has too little room; all of it is reserved here.
    """

    def __init__(
        self,
        *,
        capacity: int,
        environments: int,
        frame_shape: tuple[int, ...],
        frame_dtype: npt.DTypeLike,
        stack: int = 1,
        slack: int = 0,
        folder: Path | None = None,
        seed: int = 0,
        priority: PrioritySettings | None = None,
    ) -> None:
        slack = whole("slack", slack, 0 if folder is None else 1)
        shape = RingShape(
            capacity=capacity,
            environments=environments,
            frame_shape=tuple(frame_shape),
            frame_dtype=np.dtype(frame_dtype),
            stack=stack,
            slack=0 if folder is None else slack,
        )
        generator = np.random.Generator(np.random.PCG64(whole("seed", seed, 0)))
        snapshots = None
        if folder is None:
            ring = Ring.in_memory(shape)
        else:
            ring = create_ring(shape, Path(folder), priorities=priority is not None)
            snapshots = PrioritySnapshots(Path(folder))
        sampler = None if priority is None else PrioritisedSampler(ring, priority)
        self._start(ring, generator, sampler, snapshots)

    def _start(
        self,
        ring: Ring,
        generator: np.random.Generator,
        sampler: PrioritisedSampler | None,
        snapshots: PrioritySnapshots | None,
    ) -> None:
        self._ring = ring
        self._generator = generator
        self._sampler = sampler  # None draws uniformly
        self._snapshots = snapshots  # None in memory
        self._committed = ring.head  # vector steps at the last commit

    @property
    def nbytes(self) -> int:
        """Bytes of the whole ring, in memory or on disk, not counting priorities."""
        return self._ring.shape.nbytes

    @property
    def capacity(self) -> int:
        """The most records that can be sampled: the requested number, rounded up."""
        return self._ring.shape.capacity

    @property
    def head(self) -> int:
        """Vector steps added since the replay was made."""
        return self._ring.head

    def __len__(self) -> int:
        """Return the number of records in the window, at most `capacity`, ignored ones included."""
        return self._ring.end - self._ring.oldest

    def add(
        self,
        frame: npt.NDArray[np.generic],
        action: npt.NDArray[np.integer],
        reward: npt.NDArray[np.number],
        terminated: npt.NDArray[np.bool_],
        truncated: npt.NDArray[np.bool_],
        first: npt.NDArray[np.bool_],
        ignored: npt.NDArray[np.bool_],
    ) -> None:
        """Add one record per environment: frame (N, *frame_shape), all others (N,).

        Raises:
            ValueError: a wrong shape or type, an action beyond int32, a reward beyond float32.
            RuntimeError: the slack is used up; commit first.
        After an error, the replay is unchanged.
        """
        records = encode_records(
            self._ring.shape,
            frame=frame,
            action=action,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            first=first,
            ignored=ignored,
        )
        if self.room == 0:
            added = self._ring.head - self._committed
            raise RuntimeError(
                f"replay: {added} vector steps were added since the last commit, "
                "one more would overwrite what it needs: commit first"
            )
        self._append(records)

    def _append(self, records: dict[str, npt.NDArray[np.generic]]) -> None:
        """Store one vector step."""
        self._ring.append(records)

    def can_sample(self, n_step: int) -> bool:
        """Return whether any record can be sampled with windows of `n_step` steps."""
        self._ring.shape.check_n_step(n_step)
        # Asked before every update: nearly always the first few records answer.
        return any(len(record_B) > 0 for record_B in scan_samplable(self._ring, n_step, GLANCE))

    def sample(
        self,
        batch_size: int,
        n_step: int,
        discount: float,
        *,
        out: Batch[Any] | None = None,
        beta: float | None = None,
    ) -> Batch[Any]:
        """Draw transitions from all that can be sampled.

        Draws are uniform and independent, or by priority: one from each of `batch_size` equal parts
        of the sum of priorities, with importance weights (Schaul et al., arXiv 1511.05952).

        Args:
            batch_size: rows of the batch.
            n_step: the n of n-step returns, in steps.
            discount: γ, per step.
            out: an earlier batch of the same size that is no longer needed. Its observations are
                overwritten and returned in the new batch, which saves an allocation; without it,
                the new batch shares no memory.
            beta: β of the importance weights, from 0 (none) to 1 (full correction); required with
                priorities, and None without.

        Raises:
            ValueError: an invalid argument.
            RuntimeError: nothing can be sampled yet (see `can_sample`).
        """
        _ = whole("batch_size", batch_size, 1)
        self._ring.shape.check_n_step(n_step)
        check_fraction("discount", discount)
        weight_B = None
        if self._sampler is None:
            if beta is not None:
                raise ValueError(
                    f"beta: got {beta!r}, expected None: this replay has no priorities"
                )
            record_B = draw_samplable(self._ring, self._generator, batch_size, n_step)
        else:
            check_fraction("beta", beta)
            assert beta is not None
            record_B, priority_B = self._sampler.draw(self._generator, batch_size, n_step)
            weight_B = importance_weights(priority_B, beta)
        return self._gather(record_B, n_step, discount, out, weight_B)

    def _gather(
        self,
        record_B: Integers,
        n_step: int,
        discount: float,
        out: Batch[Any] | None,
        weights: Numbers | None,
    ) -> Batch[Any]:
        """Return the transitions that begin at the given records, all of which can be sampled."""
        return gather_batch(self._ring, record_B, n_step, discount, out, weights)

    def update_priorities(
        self, indices: npt.NDArray[np.integer], td_errors: npt.NDArray[np.floating]
    ) -> None:
        """Set the priority of sampled transitions to (|δ| + ε)^α, from their newest TD error.

        Records that have been overwritten since, or can no longer be sampled, are skipped. If a
        record is given twice, its last error counts.

        Args:
            indices: `indices` of batches of this replay, (B,).
            td_errors: |δ| of each, (B,).

        Raises:
            ValueError: a wrong shape or type, an error below 0, NaN or beyond float32, an index
                that was never sampled. The priorities are then unchanged.
            RuntimeError: the replay has no priorities.
        """
        if self._sampler is None:
            raise RuntimeError("replay: it samples uniformly and has no priorities to update")
        self._sampler.update(indices, td_errors)

    @property
    def room(self) -> int | None:
        """Vector steps that can be added before the next commit; None means any number.

        It is None in memory, and before the first commit, when nothing needs protection. While the
        ring is not full, it can exceed `slack`.
        """
        if self._snapshots is None or self._committed == 0:
            return None
        oldest_needed = max(0, self._committed - self._ring.shape.window)
        return oldest_needed + self._ring.shape.slots - self._ring.head

    @property
    def must_commit(self) -> bool:
        """Whether at most an eighth of the slack is left."""
        return self.room is not None and self.room <= self._ring.shape.slack // 8

    def commit(self) -> dict[str, object]:
        """Write ring and priorities to disk and return the state that `reopen` needs.

        The state is small and can be written as JSON. Store it safely before the next `add` or
        `commit`: from now on, the slack protects this commit instead of the previous one.

        Raises:
            RuntimeError: the replay is in memory.
            OSError: the disk could not be written.
        """
        if self._snapshots is None:
            raise RuntimeError("replay: it is in memory; only one with a folder can be committed")
        self._ring.flush()
        state = ring_state(self._ring, self._generator)
        if self._sampler is not None:
            state["priorities"] = {
                **self._sampler.state(),
                **self._snapshots.write(self._sampler.leaves),
            }
        self._committed = self._ring.head
        return state

    @classmethod
    def reopen(cls, folder: Path, state: Mapping[str, object]) -> Self:
        """Return the replay as it was at the commit that gave `state`.

        Whatever was added after that commit is ignored and will be overwritten.

        Raises:
            ReplayDamaged: the state is invalid, a file is missing or of another size, or the
                files no longer hold the steps of the commit.
        """
        replay = cls.__new__(cls)
        replay._start(*read_commit(Path(folder), state))
        return replay
