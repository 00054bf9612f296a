"""The base class of the contenders of run.py, and the settings that all DQNs share."""

from __future__ import annotations

import resource
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch

BATCH, REPLAY, TARGET_EVERY, LEARNING_RATE = 32, 100_000, 1_000, 1e-4
STEPS_PER_UPDATE = 4
RANDOM_STEPS, EPSILON = 2_000, 0.02
WARM_UP_STEPS = 2_400  # learning has begun, and its first updates are over


class Contender(ABC):
    """A training that counts its steps and updates, and can be continued at any time."""

    batch = BATCH
    """Samples that an update learns from."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self.steps = self.updates = 0

    @abstractmethod
    def train_until(self, done: Callable[[], bool]) -> None:
        """Train until `done()`, which is called from time to time, is true."""

    @abstractmethod
    def multiply_adds(self) -> int:
        """Count the multiply-adds that an update needs; see floor.py."""

    def warm_up(self) -> None:
        """Fill the replay at random, and let learning begin."""
        self.train_until(lambda: self.steps >= WARM_UP_STEPS)

    def train_for(self, seconds: float) -> dict[str, float]:
        """Train for some seconds; return steps, updates and samples learned per second."""
        steps, updates, began = self.steps, self.updates, time.perf_counter()
        self.train_until(lambda: time.perf_counter() - began >= seconds)
        took = time.perf_counter() - began
        rate = (self.updates - updates) / took
        return {"steps": (self.steps - steps) / took, "updates": rate, "samples": self.batch * rate}

    def finish(self) -> dict[str, Any]:
        """Return the process's peak memory, and the multiply-adds of an update."""
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Counting runs the network once more, after the peak was read.
        return {
            "peak_mb": kilobytes / (1024**2 if sys.platform == "darwin" else 1024),
            "multiply_adds": self.multiply_adds(),
        }
