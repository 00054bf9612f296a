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
        """Take a pickled assignment and the learner's version of noisynet.

        The sampler is built at its first fragment: of an exception in a constructor, Ray would pass
        on only the text.
        """
        self._packed = packed
        self._version = version
        self._sampler: Sampler | None = None

    def play(self, order: Order, weights: Weights | None) -> tuple[Report, Fragment]:
        """Play a fragment; raises RuntimeError if the learner has another version of noisynet."""
        if self._sampler is None:
            if self._version != __version__:
                raise RuntimeError(f"here is noisynet {__version__}, the learner's {self._version}")
            torch.set_num_threads(1)
            # Unpickled only here, so that another version, which may fail to, is reported above.
            self._sampler = build_sampler(pickle.loads(self._packed))  # noqa: S301 - the driver's
        return self._sampler.play(order, weights)


@dataclass
class _Actor:
    life: int
    handle: Any
    asked: deque[tuple[Any, Any]] = field(default_factory=deque)
    """References to (report, parcel) of every fragment asked for, the oldest first."""


class RaySamplers:
    """Samplers as Ray actors, with one CPU each, spread over the nodes.

    Ray must not restart them: a new process with the same constructor arguments would play the same
    games under the same noise again. Each call runs at most once. The report of a fragment is
    sent here; the fragment itself stays on the node that played it until it is opened.
    """

    def __init__(self) -> None:
        """Begin without samplers; Ray must be connected."""
        actor: Any = ray.remote(num_cpus=1)(SamplerActor)
        self._actor = actor.options(
            max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )
        self._actors: dict[int, _Actor] = {}

    def publish(self, weights: Weights) -> Any:
        """Put weights into the object store, from which each node fetches them once.

        Raises WorkersFailed if that fails, for instance because the store is full.
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
        """Return the next event; the fragments of a sampler arrive in order."""
        # Ray returns ready results in any order: wait only for the oldest of each sampler.
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
        """Fetch a fragment from the node that played it.

        Raises ParcelLost if it is gone, and WorkersFailed if there was no room for it.
        """
        try:
            return ray.get(parcel, timeout=_FETCH_SECONDS)
        except (GetTimeoutError, RayError) as error:
            _check_room(error, _FRAGMENT)
            raise ParcelLost(one_line(error)) from error

    @property
    def process_ids(self) -> dict[int, int]:
        """The process id of every sampler, by the sampler's number."""
        found: dict[int, Any] = {
            number: ray.get(actor.handle.__ray_call__.remote(_process_id))
            for number, actor in self._actors.items()
        }
        return found

    def close(self) -> None:
        """End every actor at once; the fragments that they are playing are dropped."""
        if ray.is_initialized():
            for actor in self._actors.values():
                ray.kill(actor.handle)
        self._actors.clear()


def _process_id(_: object) -> int:
    return os.getpid()


class ShardActor:
    """A shard in a process of its own, on the machine that has the run's folder."""

    def __init__(self) -> None:
        """Begin without a shard: of an exception here, Ray would pass on only the text."""
        self._shard: Shard | None = None

    def open(self, plan: ShardPlan, saved: Mapping[str, Any] | None) -> None:
        """Make or reopen the shard."""
        self._shard = Shard(plan, saved)

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the shard. Ray has already resolved a reference to a fragment."""
        return getattr(self._shard, method)(*arguments)


class RayShard:
    """A shard as a Ray actor on the learner's machine."""

    def __init__(self, plan: ShardPlan, saved: Mapping[str, Any] | None) -> None:
        """Make or reopen the shard; raises what `Shard` does, and RunError if its process fails."""
        here = ray.get_runtime_context().get_node_id()
        actor: Any = ray.remote(num_cpus=0)(ShardActor)
        self._actor = actor.options(
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False),
        ).remote()
        try:
            ray.get(self._actor.open.remote(plan, saved), timeout=_OPENING_SECONDS)
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            said = f"replay shard {plan.number} cannot be started: {one_line(error)}"
            raise RunError(said) from error

    def call(self, method: str, *arguments: Any) -> Answer:
        """Call a method of the shard; see `ShardHost.call`."""
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
        """The process id of the shard."""
        return ray.get(self._actor.__ray_call__.remote(_process_id))

    def close(self) -> None:
        """End the actor."""
        if ray.is_initialized():
            ray.kill(self._actor)


def _check_room(error: BaseException, what: str) -> None:
    """Raise WorkersFailed if `error` says that there was no room for `what`.

    Asking for it again would mean waiting for ever.
    """
    if isinstance(error, ObjectStoreFullError | OutOfDiskError):
        size = ray.cluster_resources().get("object_store_memory", 0.0)
        raise WorkersFailed(
            f"Ray's object store ({size / 1e6:,.0f} MB on all nodes) and the disk behind it are "
            f"full, expected room for {what}"
        ) from error
