"""The least time an update can take: its multiply-adds at the speed of a plain matrix product.

Also the time that the update's own products, which have other shapes, take by themselves.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

import noisynet
from noisynet.agents import ParallelQLearning, QLearning
from noisynet.agents.optimizers import autocast_for
from noisynet.assemble import build_agent
from noisynet.networks import QNetwork
from noisynet.runs import Config, config

from .made_up import ACTIONS, SHAPE, made_up_batch, made_up_rollout

# The agents whose updates are timed. Noise adds no products.
AGENTS = {
    "plain DQN": ("dqn", {"optimizer": "adam"}),
    "PQN": ("pqn-pong", {}),
    "pong-fast": ("pong-fast", {}),
}


class Products(NamedTuple):
    """The multiply-adds of a computation, and of its gradient."""

    forward: int
    backward: int


def count(compute: Callable[[], torch.Tensor]) -> Products:
    """Count the multiply-adds of a computation and of its backward pass, as torch runs them.

    Only matrix products and convolutions count. Backward has two products per layer, one for the
    weights and one for the input, unless the input needs no gradient, such as the frames.
    """
    with FlopCounterMode(display=False) as forward:
        result = compute()
    with FlopCounterMode(display=False) as backward:
        result.sum().backward()
    # A multiply-add is two operations.
    return Products(forward.get_total_flops() // 2, backward.get_total_flops() // 2)


def dqn_multiply_adds(values: Callable[[], torch.Tensor], batch: int) -> int:
    """Count the multiply-adds of an update of plain DQN: two networks forward, one backward.

    `values` runs the network on one observation.
    """
    products = count(values)
    return batch * (2 * products.forward + products.backward)


def update_multiply_adds(chosen: Config) -> int:
    """Count the multiply-adds of a value-based agent's update, with a plain network of its shape.

    A noisy layer can be computed in several ways, but it needs only the products of its weights.
    PQN's targets need none: the values of the steps are known from acting.
    """
    agent = build_agent(chosen.replaced(precision="float32"), SHAPE, ACTIONS)
    if isinstance(agent, ParallelQLearning):
        rollouts = chosen.rollouts
        steps = rollouts.rollout_steps * chosen.environment.environments
        products = count(_values(agent.network))
        return steps // rollouts.minibatches * (products.forward + products.backward)
    assert isinstance(agent, QLearning), "an agent that learns values"
    assert not chosen.learning.double, "its online network runs once more"
    return dqn_multiply_adds(_values(agent.online), chosen.learning.batch_size)


def _values(network: QNetwork) -> Callable[[], torch.Tensor]:
    plain = noisynet.denoise(copy.deepcopy(network))
    return lambda: plain(torch.zeros(1, *SHAPE, dtype=torch.uint8))


class _Products(TorchDispatchMode):
    """A mode that records the matrix products and convolutions run in it, with their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Callable[[], object]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        kwargs = kwargs or {}
        if func.overloadpacket in flop_registry:
            self.kept.append(partial(func, *args, **kwargs))
        return func(*args, **kwargs)


def products_of(update: Callable[[], object]) -> Callable[[], None]:
    """Return a function that repeats the products of an update and nothing else of it."""
    with _Products() as products:
        update()

    def again() -> None:
        with torch.no_grad():
            for product in products.kept:
                product()

    return again


def floor(precision: str, threads: int, agent: str, seconds: float = 8.0) -> dict[str, object]:
    """Time an agent's updates, their products alone, and a plain 1024 × 1024 matrix product."""
    torch.set_num_threads(threads)
    preset, fields = AGENTS[agent]
    chosen = config.load(
        preset, {"device": "cpu", "precision": precision, "threads": threads, **fields}
    )
    update, batch = update_of(chosen)
    update()  # PQN's first update also makes targets
    products = products_of(update)
    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    if precision == "bfloat16":
        left, right = left.bfloat16(), right.bfloat16()

    def product() -> None:
        with torch.no_grad(), autocast_for(precision, torch.device("cpu")):
            _ = left @ right

    product_seconds, products_seconds, update_seconds = fastest(
        product, products, update, seconds=seconds
    )
    speed = 1024**3 / product_seconds
    floor_seconds = update_multiply_adds(chosen) / speed
    return {
        "agent": agent,
        "precision": precision,
        "threads": threads,
        "batch": batch,
        "gmacs_per_second": speed / 1e9,
        "update_ms": 1e3 * update_seconds,
        "products_ms": 1e3 * products_seconds,
        "floor_ms": 1e3 * floor_seconds,
        "share": floor_seconds / update_seconds,
    }


def update_of(chosen: Config) -> tuple[Callable[[], object], int]:
    """Return a function that makes an update on random experience, and its number of samples."""
    agent = build_agent(chosen, SHAPE, ACTIONS)
    if isinstance(agent, ParallelQLearning):
        rollout = made_up_rollout(chosen)

        def of_rollout() -> None:
            # Some updates begin by making targets; the fastest one does not.
            if not agent.updates_left:
                agent.begin(rollout)
            agent.update()

        return of_rollout, rollout.action_t.size // chosen.rollouts.minibatches
    assert isinstance(agent, QLearning), "an agent that learns values"
    batch = made_up_batch(chosen.learning.batch_size)
    return lambda: agent.update(batch), chosen.learning.batch_size


def fastest(*functions: Callable[[], object], seconds: float) -> list[float]:
    """Return the least time of each function: what the machine can do when nothing else runs.

    They take turns, so that other work on the machine affects all alike.
    """
    best = [float("inf")] * len(functions)
    for function in functions:
        for _ in range(5):
            function()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for place, function in enumerate(functions):
            began = time.perf_counter()
            function()
            best[place] = min(best[place], time.perf_counter() - began)
    return best
