"""How the time of a training loop divides into acting, storing, sampling, learning and more."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any


def time_parts(calls: Counter[str] | None = None) -> defaultdict[str, float]:
    """Start timing the parts of the training loop; return {part: seconds}, which then grows.

    Calls that have returned are counted in `calls`, if given. This replaces methods of the
    package's classes, so call it in a process that does nothing else.
    """
    from noisynet.agents import ParallelQLearning, QLearning, StaticMinibatches, StaticUpdates
    from noisynet.envs.atari import AtariEnvironments
    from noisynet.replay import FrameReplay
    from noisynet.runs.metrics import MetricsWriter

    seconds: defaultdict[str, float] = defaultdict(float)

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                seconds[part] += time.perf_counter() - began
                if calls is not None:
                    calls[part] += 1

        return call

    for part, owner, name in (
        ("environment", AtariEnvironments, "step"),
        ("acting", QLearning, "act"),
        ("acting", ParallelQLearning, "act"),
        ("storing", FrameReplay, "add"),
        ("sampling", FrameReplay, "sample"),
        ("learning", QLearning, "update"),
        ("learning", StaticUpdates, "update"),
        ("learning", StaticMinibatches, "update"),
        ("learning", ParallelQLearning, "update"),
        ("making targets", ParallelQLearning, "begin"),
        ("copying to the target", QLearning, "copy_to_target"),
        ("logging", MetricsWriter, "write"),
    ):
        setattr(owner, name, timed(part, getattr(owner, name)))
    return seconds
