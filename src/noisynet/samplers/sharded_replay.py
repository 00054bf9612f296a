"""The replay of a run with samplers, in one or more shards.

Suffixes: B samples, S shards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from ..replay import Batch, importance_weights
from ..training import WorkersFailed
from .backend import ParcelLost
from .messages import Fragment
from .shard import Drawn, Inserted, Shard, ShardPlan

Answer = Callable[[], Any]
"""Waits for a shard's answer if need be, and returns it. Raises ShardLost or ParcelLost."""


_MOST_DEATHS = 3
"""In a row, without an answer in between; restarts do not help after that."""


class ShardLost(Exception):
    """A shard died; the message says why."""


class ShardHost(Protocol):
    """The process that one shard runs in: this one, or an actor's."""

    def call(self, method: str, *arguments: Any) -> Answer:
        """Start a call to a method of `Shard`, so that several shards can work at the same time."""
        ...

    def close(self) -> None:
        """End the shard."""
        ...


MakeHost = Callable[[ShardPlan, "Mapping[str, Any] | None"], ShardHost]
"""Makes or reopens a shard, from a plan and the state of its last commit; see `Shard`."""


class LocalHost:
    """A shard in this process."""

    def __init__(
        self,
        plan: ShardPlan,
        saved: Mapping[str, Any] | None,
        *,
        fetch: Callable[[Any], Fragment],
    ) -> None:
        """Make or reopen the shard; `fetch` opens the parcels that hold fragments."""
        self._shard = Shard(plan, saved)
        self._fetch = fetch

    def call(self, method: str, *arguments: Any) -> Answer:
        """Call the method at once."""
        if method == "insert":
            *who, parcel = arguments
            arguments = (*who, self._fetch(parcel))
        answer = getattr(self._shard, method)(*arguments)
        return lambda: answer

    def close(self) -> None:
        """Do nothing: the shard ends with this process."""


@dataclass(frozen=True)
class ShardRestarted:
    """The restart of a shard that died, from its last commit."""

    shard: int
    reason: str


_ROW = np.dtype([("shard", np.int32), ("life", np.int32), ("index", np.int64)])
"""Where a row of a batch comes from: a shard, its life, and the index there."""


class ShardedReplay:
    """A replay in shards: each stores the fragments of its samplers, and batches come from all.

    The rows of a batch are divided among the shards in proportion to the sums of their priorities
    at the last batch, or to their numbers of records if draws are uniform. Importance weights are
    exact for the shares that were drawn: w ∝ P(i)^-β with P(i) = share · p_i / Σp of the shard. A
    shard that dies is restored from its last commit; later records are lost. Every method raises
    WorkersFailed if a shard dies again and again without having answered.
    """

    def __init__(
        self,
        plans: Sequence[ShardPlan],
        make: MakeHost,
        *,
        saved: Sequence[Mapping[str, Any]] | None = None,
        n_step: int,
        seed: int,
    ) -> None:
        """Make every shard, or reopen it from what `commit` returned.

        Raises ReplayDamaged, ValueError or OSError as `FrameReplay` does.
        """
        self._plans = list(plans)
        self._make = make
        self._n_step = n_step
        self._saved: list[Mapping[str, Any] | None] = [None] * len(plans)
        if saved is not None:
            # The samplers are new: what "lanes" has was sent by those of the former session.
            self._saved = [{"ring": state["ring"]} for state in saved]
        self._hosts = [make(plan, state) for plan, state in zip(plans, self._saved, strict=True)]
        self._wait("check_windows", n_step)
        self._lives = [0] * len(plans)
        self._deaths = [0] * len(plans)
        """Deaths of each shard since it last answered."""
        self._masses: list[float | None] = [None] * len(plans)
        self._sizes: list[int] = []
        self._out: set[int] = set()
        """Samplers that died, and whose successors have sent nothing yet."""
        self._commit_due = False
        self._generator = np.random.Generator(np.random.PCG64(seed))
        self.restarted: list[ShardRestarted] = []
        """Restarts that have not been reported yet; whoever reports them empties the list."""

    def _wait(self, method: str, *arguments: Any) -> list[Any]:
        answers = [host.call(method, *arguments) for host in self._hosts]
        return [answer() for answer in answers]

    def _shard_of(self, sampler: int) -> int:
        return sampler % len(self._hosts)

    def insert(self, sampler: int, life: int, number: int, parcel: Any) -> bool:
        """Insert the fragment in a parcel; return false if it is lost, or was inserted before."""
        shard = self._shard_of(sampler)
        try:
            told: Inserted = self._hosts[shard].call("insert", sampler, life, number, parcel)()
        except ShardLost as lost:
            self._restart(shard, lost)
            return False
        except ParcelLost:
            return False
        self._deaths[shard] = 0
        if told.accepted:
            self._out.discard(sampler)
        self._commit_due |= told.must_commit
        return told.accepted

    def leave_out(self, sampler: int) -> None:
        """Stop waiting for a sampler that died, until its successor sends a fragment."""
        self._out.add(sampler)
        shard = self._shard_of(sampler)
        try:
            self._hosts[shard].call("leave_out", sampler)()
        except ShardLost as lost:
            self._restart(shard, lost)

    @property
    def must_commit(self) -> bool:
        """Whether a commit is due: a shard has little room left beside the records of the last."""
        return self._commit_due

    def can_sample(self, n_step: int) -> bool:
        """Return whether any shard can be drawn from; `sample` relies on what this found."""
        self._sizes = self._ask_all("size", n_step)
        return any(self._sizes)

    def sample(
        self,
        batch_size: int,
        n_step: int,
        discount: float,
        *,
        out: Batch[np.ndarray] | None = None,
        beta: float | None = None,
    ) -> Batch[np.ndarray] | None:
        """Draw a batch after `can_sample`; None if a shard died and nothing is left to draw from.

        `out` is not used: the batches of several shards are joined in new memory.
        """
        del out
        while True:
            shares = self._shares(self._sizes, batch_size)
            answers = {
                shard: self._hosts[shard].call("sample", rows, n_step, discount, beta)
                for shard, rows in shares.items()
            }
            drawn: dict[int, Drawn] = {}
            for shard, answer in answers.items():
                try:
                    drawn[shard] = answer()
                except ShardLost as lost:
                    self._restart(shard, lost)
            if len(drawn) == len(shares):
                break
            if not self.can_sample(n_step):
                return None
        for shard, one in drawn.items():
            self._masses[shard] = one.total
        rows = [self._rows(shard, one.batch) for shard, one in drawn.items()]
        return _joined(list(drawn.values()), np.concatenate(rows), beta)

    def _rows(self, shard: int, batch: Batch[np.ndarray]) -> np.ndarray:
        """Return shard, life and index of each row of a shard's batch."""
        rows = np.zeros(len(batch), _ROW)
        rows["shard"], rows["life"], rows["index"] = shard, self._lives[shard], batch.indices
        return rows

    def _ask_all(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of every shard, and again of any shard that died and was restored."""
        answers = [host.call(method, *arguments) for host in self._hosts]
        return [
            self._answer(shard, answer, method, *arguments) for shard, answer in enumerate(answers)
        ]

    def _answer(self, shard: int, answer: Answer, method: str, *arguments: Any) -> Any:
        while True:
            try:
                found = answer()
            except ShardLost as lost:
                self._restart(shard, lost)
                answer = self._hosts[shard].call(method, *arguments)
            else:
                self._deaths[shard] = 0
                return found

    def _shares(self, sizes: list[int], rows: int) -> dict[int, int]:
        """Return each shard's number of rows, if any: in expectation proportional to its mass."""
        able = np.flatnonzero(sizes)
        known = [self._masses[shard] for shard in able]
        mass_S = np.array([sizes[shard] for shard in able] if None in known else known, np.float64)
        # One offset for all: each share is its expectation, rounded up or down by chance.
        ends_S = mass_S.cumsum() / mass_S.sum() * rows
        part_B = ends_S.searchsorted(np.arange(rows) + self._generator.random(), "right")
        counts_S = np.bincount(part_B.clip(max=len(able) - 1), minlength=len(able))
        return {
            int(shard): int(count) for shard, count in zip(able, counts_S, strict=True) if count
        }

    def update_priorities(self, indices: np.ndarray, td_errors: np.ndarray) -> None:
        """Set priorities from a batch's errors (B,), except in shards that died since then."""
        answers: list[tuple[int, Answer]] = []
        for shard in np.unique(indices["shard"]).tolist():
            own = indices["shard"] == shard
            if (indices["life"][own] == self._lives[shard]).all():
                call = self._hosts[shard].call
                answers.append(
                    (shard, call("update_priorities", indices["index"][own], td_errors[own]))
                )
        for shard, answer in answers:
            try:
                answer()
            except ShardLost as lost:
                self._restart(shard, lost)

    def commit(self) -> dict[str, Any]:
        """Write all shards to disk; return the state from which a resumed run reopens them."""
        self._saved = self._ask_all("commit")
        self._commit_due = False
        return {
            "shards": list(self._saved),
            "generator": self._generator.bit_generator.state,
        }

    def restore_generator(self, state: Mapping[str, Any]) -> None:
        """Restore the generator that draws shares to its state at a commit."""
        self._generator.bit_generator.state = dict(state)

    def close(self) -> None:
        """End every shard."""
        for host in self._hosts:
            host.close()

    def _restart(self, shard: int, lost: ShardLost) -> None:
        self._deaths[shard] += 1
        if self._deaths[shard] >= _MOST_DEATHS:
            raise WorkersFailed(
                f"shard {shard} died {self._deaths[shard]} times without an answer: {lost}"
            ) from lost
        self._hosts[shard].close()
        self._hosts[shard] = self._make(self._plans[shard], self._saved[shard])
        self._lives[shard] += 1
        self._masses[shard] = None
        self.restarted.append(ShardRestarted(shard, str(lost)))
        for sampler in self._out.intersection(self._plans[shard].samplers):
            self.leave_out(sampler)


def _joined(drawn: list[Drawn], rows: np.ndarray, beta: float | None) -> Batch[np.ndarray]:
    """Join the batches of all shards; `rows` (B,) has the shard, life and index of each row."""
    batches = [one.batch for one in drawn]
    # A single batch of this process is used as it is; one from another process is read-only.
    alone = len(batches) == 1 and batches[0].return_t.flags.writeable
    together = {
        name: getattr(batches[0], name)
        if alone
        else np.concatenate([getattr(batch, name) for batch in batches])
        for name in ("observation_tm1", "action_tm1", "return_t", "discount_t", "observation_t")
    }
    weights = None
    if beta is not None:
        chance_B = np.concatenate(
            [
                len(one.batch) / len(rows) * one.priority / one.total
                for one in drawn
                if one.priority is not None
            ]
        )
        weights = importance_weights(chance_B, beta)
    return Batch(**together, weights=weights, indices=rows)


def with_shards(
    plan: ShardPlan, samplers: int, shards: int, seeds: Callable[[int], int]
) -> list[ShardPlan]:
    """Divide the plan of a whole replay; sampler i feeds shard i modulo the number of shards."""
    count = max(shards, 1)
    plans: list[ShardPlan] = []
    for number in range(count):
        own = tuple(range(number, samplers, count))
        plans.append(
            replace(
                plan,
                number=number,
                samplers=own,
                capacity=max(plan.capacity * len(own) // samplers, 1),
                seed=seeds(number),
                folder=plan.folder / f"shard_{number}",
            )
        )
    return plans
