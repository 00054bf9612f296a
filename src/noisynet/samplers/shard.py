"""A shard of a replay, fed by several samplers: it takes fragments whole, and never twice."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..replay import Batch, FrameReplay, PrioritySettings
from .messages import ReplayFragment

_FLAGS = ("terminated", "truncated", "first", "ignored")


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """The number, samplers and size of one shard of a replay."""

    number: int
    """From 0."""
    samplers: tuple[int, ...]
    """Numbers of the samplers that feed it."""
    environments: int
    """Number of environments of each sampler."""
    capacity: int
    """Transitions, over all its environments."""
    frame_shape: tuple[int, ...]
    frame_dtype: str
    stack: int
    slack: int
    """Vector steps that can be added between two commits."""
    seed: int
    priority: PrioritySettings | None
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Inserted:
    """The answer of a shard to a fragment."""

    accepted: bool
    """False for a fragment that the shard has taken before."""
    must_commit: bool
    """Whether a commit is due: little room is left beside the records of the last one."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A batch of one shard, with what importance weights over all shards need."""

    batch: Batch[np.ndarray]
    priority: np.ndarray | None
    """(B,): the priorities that the transitions were drawn by; None if draws are uniform."""
    total: float
    """The sum of all priorities of the shard; if draws are uniform, its number of records."""


class _Ring(FrameReplay):
    """A replay that also returns the priorities of drawn records."""

    def priorities(self, indices: np.ndarray) -> tuple[np.ndarray | None, float]:
        """Return the priorities of records just drawn (None if uniform), and the sum of all."""
        if self._sampler is None:
            return None, float(len(self))
        leaves = self._sampler.leaves
        return leaves[indices % self.capacity], float(leaves.sum())


@dataclass
class _Lane:
    """The queue of one sampler: steps that it has sent and the ring has not taken yet."""

    count: int
    life: int = -1
    last: int = -1
    """Number of the newest fragment of that life."""
    out: bool = False
    """Whether its sampler died and the successor has sent nothing yet; others then do not wait."""
    rows: deque[dict[str, np.ndarray]] = field(default_factory=deque)
    torn: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    """(count,): whether the next record does not follow on from the previous one."""
    partial: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """(count,): number of coming records whose stacks lack a frame."""

    def __post_init__(self) -> None:
        self.torn, self.partial = np.zeros(self.count, bool), np.zeros(self.count, np.int64)

    def tear(self, stack: int) -> None:
        """Mark a gap, so that nothing connects coming records with earlier ones."""
        self.torn[:], self.partial[:] = True, stack - 1


class Shard:
    """The records of some samplers, in one ring buffer in the run's folder.

    A vector step of the ring has a record of every environment of every sampler, so a step is added
    when all samplers have sent it. For samplers that are out, records that are never sampled are
    added instead. Where a fragment is missing, no n-step window reaches over the gap, and a record
    whose stack does is never sampled.
    """

    def __init__(self, plan: ShardPlan, saved: Mapping[str, Any] | None) -> None:
        """Make a new ring, or reopen one from what `commit` returned.

        Without "lanes" in it, the samplers are new, too, so that their lives count from 0 again.
        Raises ReplayDamaged, ValueError or OSError as `FrameReplay` does.
        """
        self.plan = plan
        self._lanes = {number: _Lane(plan.environments) for number in plan.samplers}
        if saved is None:
            shutil.rmtree(plan.folder, ignore_errors=True)
            self._ring = _Ring(
                capacity=plan.capacity,
                environments=plan.environments * len(plan.samplers),
                frame_shape=plan.frame_shape,
                frame_dtype=plan.frame_dtype,
                stack=plan.stack,
                slack=plan.slack,
                folder=plan.folder,
                seed=plan.seed,
                priority=plan.priority,
            )
        else:
            self._ring = _Ring.reopen(plan.folder, saved["ring"])
            for number, lane in self._lanes.items():
                lane.tear(plan.stack)
                if "lanes" in saved:
                    lane.life, lane.last = saved["lanes"][str(number)]

    def check_windows(self, n_step: int) -> None:
        """Raise ValueError if windows of `n_step` steps do not fit into the ring."""
        self._ring.can_sample(n_step)

    def insert(self, sampler: int, life: int, number: int, fragment: ReplayFragment) -> Inserted:
        """Take a fragment, unless it was taken before; raises ValueError if it does not fit."""
        lane = self._lanes[sampler]
        accepted = (life, number) > (lane.life, lane.last)
        if accepted:
            arrays = self._checked(fragment)
            if number != (lane.last + 1 if life == lane.life else 0):
                lane.tear(self.plan.stack)
            lane.life, lane.last, lane.out = life, number, False
            for step in range(len(fragment.action)):
                row = {name: array[step] for name, array in arrays.items()}
                lane.rows.append(self._mended(lane, row))
            self._flush()
        return Inserted(accepted=accepted, must_commit=self._ring.must_commit)

    def leave_out(self, sampler: int) -> None:
        """Stop waiting for a sampler until its successor sends a fragment."""
        self._lanes[sampler].out = True
        self._flush()

    def size(self, n_step: int) -> int:
        """Count the records; 0 while none can be drawn."""
        self._flush()
        return len(self._ring) if self._ring.can_sample(n_step) else 0

    def sample(self, size: int, n_step: int, discount: float, beta: float | None) -> Drawn:
        """Draw transitions, uniformly or by priority."""
        self._flush()
        batch = self._ring.sample(size, n_step, discount, beta=beta)
        assert batch.indices is not None, "a batch of a replay has them"
        priority, total = self._ring.priorities(batch.indices)
        return Drawn(batch=batch, priority=priority, total=total)

    def update_priorities(self, indices: np.ndarray, errors: np.ndarray) -> None:
        """Set the priorities of drawn records, from their TD errors."""
        self._ring.update_priorities(indices, errors)

    def commit(self) -> dict[str, Any]:
        """Write the ring to disk; return the state that reopens it, as plain JSON values.

        Steps that still wait, for other samplers or for room, are not part of it. They go in with
        the next call: until the state is stored, the ring must hold what the former commit needs.
        """
        return {
            "ring": self._ring.commit(),
            "lanes": {str(number): [one.life, one.last] for number, one in self._lanes.items()},
        }

    def _checked(self, fragment: ReplayFragment) -> dict[str, np.ndarray]:
        """Return a fragment's arrays, all checked before any of them is added."""
        arrays = fragment.arrays()
        shape = (len(fragment.action), self.plan.environments)
        wanted = {
            **dict.fromkeys(_FLAGS, (shape, "bool")),
            "frame": ((*shape, *self.plan.frame_shape), self.plan.frame_dtype),
            "action": (shape, "int32"),
            "reward": (shape, "float32"),
        }
        for name, (size, dtype) in wanted.items():
            got = arrays[name]
            if got.shape != size or got.dtype != np.dtype(dtype):
                raise ValueError(
                    f"fragment: {name}: got {got.dtype} {got.shape}, expected {dtype} {size}"
                )
        if not np.isfinite(arrays["reward"]).all():
            raise ValueError("fragment: reward: expected finite numbers")
        return arrays

    def _mended(self, lane: _Lane, row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Mark the records after a gap: the first begins a game, any short of frames is ignored."""
        if not lane.torn.any() and not lane.partial.any():
            return row
        # Where a game begins, its stack has empty frames anyway, and the gap does not matter.
        whole = row["first"]
        lane.torn &= ~whole
        lane.partial[whole] = 0
        mended = {
            **row,
            "first": whole | lane.torn,
            "ignored": row["ignored"] | (lane.partial > 0),
        }
        lane.torn[:] = False
        np.maximum(lane.partial - 1, 0, out=lane.partial)
        return mended

    def _flush(self) -> None:
        """Add vector steps while every sampler that is not out has one waiting."""
        lanes = list(self._lanes.values())
        while any(lane.rows for lane in lanes) and all(lane.rows or lane.out for lane in lanes):
            if self._ring.room == 0:
                # The next commit makes room, and the next call after it comes back here.
                return
            rows = [lane.rows.popleft() if lane.rows else self._filler() for lane in lanes]
            self._ring.add(
                **{name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
            )

    def _filler(self) -> dict[str, np.ndarray]:
        count, plan = self.plan.environments, self.plan
        nothing = np.zeros(count, bool)
        return {
            "frame": np.zeros((count, *plan.frame_shape), plan.frame_dtype),
            "action": np.zeros(count, np.int32),
            "reward": np.zeros(count, np.float32),
            "terminated": nothing,
            "truncated": nothing,
            "first": ~nothing,
            "ignored": ~nothing,
        }
