"""The least time an update can take: its multiply-adds at the speed of a plain matrix product."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from noisynet.agents.optimizers import autocast_for
from noisynet.runs import config

from .made_up import ACTIONS, made_up_batch, pong_agent

BATCH = 32
# Multiply-adds for one observation, layer by layer: outputs × inputs of each.
CONVOLUTIONS = (32 * 20 * 20 * 4 * 8 * 8, 64 * 9 * 9 * 32 * 4 * 4, 64 * 7 * 7 * 64 * 3 * 3)
DENSE = 3136 * 512 + 512 * ACTIONS


def multiply_adds() -> int:
    """Count the multiply-adds of an update of plain DQN: two networks forward, one backward.

    Backward is two products a layer, one for the weights and one for the input; the first
    convolution's input needs none.
    """
    forward = sum(CONVOLUTIONS) + DENSE
    backward = 2 * forward - CONVOLUTIONS[0]
    return BATCH * (2 * forward + backward)


def floor(precision: str, threads: int) -> dict[str, object]:
    """Time updates of plain DQN, and matrix products of 1024, in the same precision."""
    torch.set_num_threads(threads)
    settings = config.load(
        "dqn", {"device": "cpu", "precision": precision, "threads": threads, "optimizer": "adam"}
    )
    agent = pong_agent(settings)
    batch = made_up_batch(BATCH)
    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    if precision == "bfloat16":
        left, right = left.bfloat16(), right.bfloat16()

    def product() -> None:
        with torch.no_grad(), autocast_for(precision, torch.device("cpu")):
            _ = left @ right

    product_seconds, update_seconds = fastest(product, lambda: agent.update(batch))
    speed = 1024**3 / product_seconds
    floor_seconds = multiply_adds() / speed
    return {
        "precision": precision,
        "threads": threads,
        "batch": BATCH,
        "gmacs_per_second": speed / 1e9,
        "update_ms": 1e3 * update_seconds,
        "floor_ms": 1e3 * floor_seconds,
        "share": floor_seconds / update_seconds,
    }


def fastest(*functions: Callable[[], object], seconds: float = 8.0) -> list[float]:
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
