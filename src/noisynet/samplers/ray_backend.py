"""Samplers and shards as Ray actors."""

from __future__ import annotations

import os
import pickle
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
import torch
from ray.exceptions import (
    GetTimeoutError,
    ObjectStoreFullError,
    OutOfDiskError,
    RayActorError,
    RayError,
    RayTaskError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from .. import __version__
from ..agents import LossNotFinite
from ..envs.arguments import one_line
from ..runs.errors import RunError
from ..training import WorkersFailed
from .backend import Arrived, Lost, ParcelLost
from .messages import Assignment, Fragment, Order, Report, Weights
from .sampler import Sampler, build_sampler
from .shard import Shard, ShardPlan
from .sharded_replay import Answer, ShardLost

_FETCH_SECONDS = 120.0
_OPENING_SECONDS = 300.0
_FRAGMENT = "a fragment; lower --fragment-steps (a2c: --rollout-steps) make it smaller"


class SamplerActor:
    """A sampler in a process of its own."""

    def __init__(self, packed: bytes, version: str) -> None:
        """Take an assignment and the learner's version of noisynet.

        What cannot be built shows at the first fragment: of a failed constructor Ray tells nothing
        but text.
        """
        self._packed = packed
        self._version = version
        self._sampler: Sampler | None = None

    def play(self, order: Order, weights: Weights | None) -> tuple[Report, Fragment]:
        """Play a fragment; raises RuntimeError on another version of noisynet."""
        if self._sampler is None:
            if self._version != __version__:
                raise RuntimeError(f"here is noisynet {__version__}, the learner's {self._version}")
            torch.set_num_threads(1)
            # Packed, so that a version that cannot even read it gets as far as saying so.
            self._sampler = build_sampler(pickle.loads(self._packed))  # noqa: S301 - the driver's
        return self._sampler.play(order, weights)


@dataclass
class _Actor:
    life: int
    handle: Any
    asked: deque[tuple[Any, Any]] = field(default_factory=deque)
    """(report, parcel) of every fragment asked for, the oldest first."""


class RaySamplers:
    """Samplers as Ray actors, a CPU each, spread over the nodes.

    Ray restarts none of them: a new process under the old constructor would play the same games
    under the same noise once more. Calls happen at most once. The report of a fragment comes here;
    the fragment itself stays where it was played until somebody opens it.
    """

    def __init__(self) -> None:
        """Begin without any; Ray must be connected."""
        actor: Any = ray.remote(num_cpus=1)(SamplerActor)
        self._actor = actor.options(
            max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )
        self._actors: dict[int, _Actor] = {}

    def publish(self, weights: Weights) -> Any:
        """Put weights into the object store, from where each node fetches them once.

        Raises WorkersFailed where it is full.
        """
        try:
            return ray.put(weights)
        except RayError as error:
            size = sum(array.nbytes for array in weights.values())
            _check_room(error, f"weights of {size / 1e6:,.0f} MB")
            raise WorkersFailed(f"weights cannot be sent to samplers: {one_line(error)}") from error

    def start(self, assignment: Assignment) -> None:
        """Start an actor, and end the one that had its number if it still lives."""
        former = self._actors.pop(assignment.number, None)
        if former is not None:
            ray.kill(former.handle)
        handle = self._actor.remote(pickle.dumps(assignment), __version__)
        self._actors[assignment.number] = _Actor(assignment.life, handle)

    def ask(self, sampler: int, order: Order, weights: Any | None) -> None:
        """Ask for a fragment."""
        actor = self._actors[sampler]
        report, parcel = actor.handle.play.options(num_returns=2).remote(order, weights)
        actor.asked.append((report, parcel))

    def take(self, timeout: float) -> Arrived | Lost | None:
        """Return what happened next; the fragments of a sampler come in their order."""
        # Ray tells in any order what is ready: only the oldest of each sampler is waited for.
        oldest = {
            actor.asked[0][0]: number for number, actor in self._actors.items() if actor.asked
        }
        if not oldest:
            return None
        ready, _ = ray.wait(list(oldest), num_returns=1, timeout=timeout)
        if not ready:
            return None
        number = oldest[ready[0]]
        actor = self._actors[number]
        _, parcel = actor.asked.popleft()
        try:
            report = ray.get(ready[0])
        except RayTaskError as error:
            actor.asked.clear()
            diverged = isinstance(error.cause, LossNotFinite)
            return Lost(number, actor.life, one_line(error.cause), diverged)
        except RayError as error:
            actor.asked.clear()
            return Lost(number, actor.life, one_line(error))
        return Arrived(number, actor.life, report, parcel)

    def open(self, parcel: Any) -> Fragment:
        """Fetch a fragment from where it was played; raises WorkersFailed where it had no room."""
        try:
            return ray.get(parcel, timeout=_FETCH_SECONDS)
        except (GetTimeoutError, RayError) as error:
            _check_room(error, _FRAGMENT)
            raise ParcelLost(one_line(error)) from error

    @property
    def process_ids(self) -> dict[int, int]:
        """Ask every sampler for its process, by its number."""
        found: dict[int, Any] = {
            number: ray.get(actor.handle.__ray_call__.remote(_process_id))
            for number, actor in self._actors.items()
        }
        return found

    def close(self) -> None:
        """End every actor at once: what they play is not wanted any more."""
        if ray.is_initialized():
            for actor in self._actors.values():
                ray.kill(actor.handle)
        self._actors.clear()


def _process_id(_: object) -> int:
    return os.getpid()


class ShardActor:
    """A shard in a process of its own, on the machine that has the run's folder."""

    def __init__(self) -> None:
        """Have no shard yet: of a failed constructor Ray tells nothing but text."""
        self._shard: Shard | None = None

    def open(self, plan: ShardPlan, saved: Mapping[str, Any] | None, resumed: bool) -> None:
        """Make or reopen it."""
        self._shard = Shard(plan, saved, resumed=resumed)

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the shard. A fragment's reference has become the fragment by now."""
        return getattr(self._shard, method)(*arguments)


class RayShard:
    """A shard as a Ray actor beside the learner."""

    def __init__(self, plan: ShardPlan, saved: Mapping[str, Any] | None, resumed: bool) -> None:
        """Make or reopen it; raises what `Shard` raises, and RunError where its process dies."""
        here = ray.get_runtime_context().get_node_id()
        actor: Any = ray.remote(num_cpus=0)(ShardActor)
        self._actor = actor.options(
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False),
        ).remote()
        try:
            ray.get(self._actor.open.remote(plan, saved, resumed), timeout=_OPENING_SECONDS)
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            said = f"replay shard {plan.number} cannot be started: {one_line(error)}"
            raise RunError(said) from error

    def call(self, method: str, *arguments: Any) -> Answer:
        """Ask for a method."""
        reference = self._actor.call.remote(method, *arguments)

        def answer() -> Any:
            try:
                return ray.get(reference)
            except RayTaskError as error:
                _check_room(error, _FRAGMENT if method == "insert" else f"a shard's {method}")
                if isinstance(error.cause, RayError):
                    raise ParcelLost(one_line(error.cause)) from error
                raise error.cause from error
            except RayActorError as error:
                raise ShardLost(one_line(error)) from error
            except RayError as error:
                raise ParcelLost(one_line(error)) from error

        return answer

    @property
    def process_id(self) -> int:
        """Ask for its process."""
        return ray.get(self._actor.__ray_call__.remote(_process_id))

    def close(self) -> None:
        """End the actor."""
        if ray.is_initialized():
            ray.kill(self._actor)


def _check_room(error: BaseException, what: str) -> None:
    """Raise WorkersFailed where something was lost because nothing had room for it.

    To ask for it again would be to wait for ever.
    """
    if isinstance(error, ObjectStoreFullError | OutOfDiskError):
        size = ray.cluster_resources().get("object_store_memory", 0.0)
        raise WorkersFailed(
            f"Ray's object store ({size / 1e6:,.0f} MB on all nodes) and the disk behind it are "
            f"full, expected room for {what}"
        ) from error
