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
    """A run, as `noisynet train` makes it: metrics and games are logged."""

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
        """Take events, which the loop yields with its figures and at the end of each game."""
        began = time.perf_counter()
        for _ in self._events:
            # As of this moment: an event may tell of a step within a rollout that is over by now.
            # What measured the frames and chose the precision is in both; differences are used.
            self.steps = self._environments * self._calls["environment"]
            self.updates = self._calls["learning"]
            if done():
                break
        self._measured += time.perf_counter() - began

    def warm_up(self) -> None:
        """Warm up, and leave the time it took out of the shares."""
        super().warm_up()
        self._seconds.clear()
        self._measured = 0.0

    def multiply_adds(self) -> int:
        """Count those of the agent that the config describes."""
        return update_multiply_adds(self.settings)

    @property
    def settings(self) -> Config:
        """The run's config, in which everything is chosen."""
        return open_run(self._run).config

    def finish(self) -> dict[str, Any]:
        """Close the run, and return the share of the time that each part took as well."""
        shares = {part: spent / self._measured for part, spent in self._seconds.items()}
        self._events.close()
        chosen = self.settings
        aside = {}
        if chosen.training.overlap:
            # On a thread of its own, so that its time is not part of the loop's.
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
    """A preset of PQN as it is, but that it does not end."""

    def __init__(self, threads: int, preset: str) -> None:
        chosen = config.load(preset)
        rollouts = chosen.rollouts
        steps = rollouts.rollout_steps * chosen.environment.environments
        self.batch = steps // rollouts.minibatches
        super().__init__(threads, preset)
