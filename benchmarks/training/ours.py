"""noisynet's own training as a contender of run.py: from a replay, and from rollouts."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from noisynet.assemble import train
from noisynet.runs import Config, config, open_run

from .contender import (
    BATCH,
    LEARNING_RATE,
    RANDOM_STEPS,
    REPLAY,
    STEPS_PER_UPDATE,
    TARGET_EVERY,
    Contender,
)
from .floor import update_multiply_adds
from .parts import time_parts

_WITHOUT_END = {"checkpoint_every": 10**8, "steps": 10**8, "solved_return": None}


class Run(Contender):
    """A run as `noisynet train` makes it, with its metrics and games logged."""

    def __init__(self, threads: int, preset: str, **fields: Any) -> None:
        super().__init__(threads)
        settings = config.load(
            preset, {"device": "cpu", "threads": threads, **_WITHOUT_END, **fields}
        )
        self._environments = settings.environment.environments
        self._calls: Counter[str] = Counter()
        self._seconds = time_parts(self._calls)
        self._folder = tempfile.TemporaryDirectory()
        self._run = Path(self._folder.name) / "run"
        self._events = train(settings, self._run)
        self._measured = 0.0

    def train_until(self, done: Callable[[], bool]) -> None:
        """Train until `done()` is true; it is called whenever a game ends or figures are logged."""
        began = time.perf_counter()
        for _ in self._events:
            # Counted by calls: an event may be about an earlier step of its rollout. Calls before
            # training, to measure frames and choose the precision, count too, but only differences
            # are used.
            self.steps = self._environments * self._calls["environment"]
            self.updates = self._calls["learning"]
            if done():
                break
        self._measured += time.perf_counter() - began

    def warm_up(self) -> None:
        """Warm up; the time that it takes does not count in the shares."""
        super().warm_up()
        self._seconds.clear()
        self._measured = 0.0

    def multiply_adds(self) -> int:
        """Count the multiply-adds of an update of the config's agent."""
        return update_multiply_adds(self.settings)

    @property
    def settings(self) -> Config:
        """The run's config, with everything resolved that was left open."""
        return open_run(self._run).config

    def finish(self) -> dict[str, Any]:
        """Close the run; also return each part's share of the time, and the precision."""
        shares = {part: spent / self._measured for part, spent in self._seconds.items()}
        self._events.close()
        chosen = self.settings
        aside = {}
        if chosen.training.overlap:
            # It runs on its own thread, so that its time is not part of the loop's.
            aside["environment, meanwhile"] = shares.pop("environment")
        shares["the rest"] = 1 - sum(shares.values())
        found = super().finish()
        self._folder.cleanup()
        return {**found, "parts": shares | aside, "precision": chosen.training.precision}


class ReplayRun(Run):
    """Plain DQN in our loop, doing the same work as the others'."""

    def __init__(
        self,
        threads: int,
        *,
        environments: int,
        exploration: str,
        update_every: int = STEPS_PER_UPDATE,
        precision: str = "auto",
    ) -> None:
        super().__init__(
            threads, "noisy-dqn" if exploration == "noise" else "dqn",
            environments=environments, precision=precision, batch_size=BATCH,
            replay_capacity=REPLAY, warmup_steps=RANDOM_STEPS, update_every=update_every,
            target_every=TARGET_EVERY, optimizer="adam", learning_rate=LEARNING_RATE,
        )  # fmt: skip


class RolloutRun(Run):
    """A preset of PQN, unchanged except that the training does not end."""

    def __init__(self, threads: int, preset: str) -> None:
        chosen = config.load(preset)
        rollouts = chosen.rollouts
        steps = rollouts.rollout_steps * chosen.environment.environments
        self.batch = steps // rollouts.minibatches
        super().__init__(threads, preset)
