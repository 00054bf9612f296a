"""noisynet's own training as a contender of run.py: from a replay, and from rollouts."""

from __future__ import annotations

import tempfile
import time
from abc import abstractmethod
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
        self._seconds = time_parts()
        self._folder = tempfile.TemporaryDirectory()
        self._run = Path(self._folder.name) / "run"
        self._events = train(settings, self._run)
        self._measured = 0.0

    @abstractmethod
    def updates_by(self, step: int) -> float:
        """Return how many updates there were when the run was at a step."""

    def train_until(self, done: Callable[[], bool]) -> None:
        """Take events, which the loop yields with its figures and at the end of each game."""
        began = time.perf_counter()
        for event in self._events:
            self.steps = event.step
            self.updates = max(0.0, self.updates_by(event.step))
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
        self._update_every = update_every
        super().__init__(
            threads, "noisy-dqn" if exploration == "noise" else "dqn",
            environments=environments, precision=precision, batch_size=BATCH,
            replay_capacity=REPLAY, warmup_steps=RANDOM_STEPS, update_every=update_every,
            target_every=TARGET_EVERY, optimizer="adam", learning_rate=LEARNING_RATE,
        )  # fmt: skip

    def updates_by(self, step: int) -> float:
        """Return the updates that were due after the random steps."""
        return (step - RANDOM_STEPS) // self._update_every


class RolloutRun(Run):
    """A preset of PQN as it is, but that it does not end."""

    def __init__(self, threads: int, preset: str) -> None:
        chosen = config.load(preset)
        rollouts = chosen.rollouts
        self._steps = rollouts.rollout_steps * chosen.environment.environments
        self._updates = rollouts.epochs * rollouts.minibatches
        self.batch = self._steps // rollouts.minibatches
        super().__init__(threads, preset)

    def updates_by(self, step: int) -> float:
        """Return the updates that belong to the steps but those of the rollout in play.

        The few steps that only restarted a game are not counted as steps, so this falls short by
        one update in about a thousand.
        """
        return (step - self._steps) * self._updates / self._steps
