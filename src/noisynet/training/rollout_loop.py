"""The loop of the synchronous actor-critic: play a rollout, learn from it. It yields events."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from ..agents import ActorCritic, Rollout, RolloutLearned
from ..envs import Environments, FinishedEpisode
from ..runs.config import Config
from .events import CheckpointDue, Event, FiguresTaken, GameFinished, TrainingEnded
from .rollouts import RolloutPlayer


class Games:
    """Count the games of a run, and tell when it is solved."""

    def __init__(self, config: Config) -> None:
        """Begin without any."""
        self._training = config.training
        self._returns: deque[float] = deque(maxlen=config.training.solved_games)
        self.count = 0

    @property
    def mean_return(self) -> float | None:
        """Mean return of the last games, at most `solved_games`; None before the first."""
        return float(np.mean(self._returns)) if self._returns else None

    @property
    def solved(self) -> bool:
        """Tell whether enough games reach the mean that was asked for."""
        goal, mean = self._training.solved_return, self.mean_return
        enough = len(self._returns) == self._training.solved_games
        return goal is not None and mean is not None and enough and mean >= goal

    def finished(self, step: int, environment: int, game: FinishedEpisode) -> GameFinished:
        """Count a game that ended."""
        self.count += 1
        self._returns.append(game.reward_sum)
        return GameFinished(
            step=step,
            game=self.count,
            game_return=game.reward_sum,
            game_steps=game.steps,
            environment=environment,
            mean_return=float(np.mean(self._returns)),
            games=len(self._returns),
        )

    def state(self) -> dict[str, Any]:
        """Give the games so far."""
        return {"games": self.count, "returns": list(self._returns)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        self.count = int(state["games"])
        self._returns.extend(float(value) for value in state["returns"])


def means(learned: list[RolloutLearned]) -> dict[str, float]:
    """Give the mean of each figure over some updates."""
    every = [asdict(one) for one in learned]
    return {name: float(np.mean([one[name] for one in every])) for name in every[0]}


class RolloutLoop:
    """Train an actor-critic on environments, one rollout and one update after the other.

    Steps count agent decisions, as in the other loops. Runs end, and checkpoints are due, between
    two rollouts only.
    """

    def __init__(self, config: Config, environments: Environments, agent: ActorCritic) -> None:
        """Take the parts; nothing is played before `run` is iterated."""
        self.config = config
        self.agent = agent
        self.step = 0
        self._games = Games(config)
        self._player = RolloutPlayer(config, environments, agent)
        self._learned: list[RolloutLearned] = []
        self._last_checkpoint = 0
        self._stopping = False

    def stop(self) -> None:
        """Ask for an end after the rollout in progress."""
        self._stopping = True

    @property
    def mean_return(self) -> float | None:
        """Mean return of the last games, at most `solved_games`; None before the first."""
        return self._games.mean_return

    def run(self) -> Iterator[Event]:
        """Play and learn until the budget is used, the task is solved, or `stop` is called."""
        while True:
            reason = self._end()
            if reason is not None:
                yield TrainingEnded(step=self.step, reason=reason)
                return
            played = self._player.play()
            before, self.step = self.step, self.step + played.steps
            for steps, game in played.games:
                yield self._games.finished(before + steps, game.environment, game)
            self._learned.append(self.agent.update(played.rollout, before))
            if self.agent.updates % self.config.training.log_every == 0:
                yield self._figures(played.rollout)
            if self.step - self._last_checkpoint >= self.config.training.checkpoint_every:
                self._last_checkpoint = self.step
                yield CheckpointDue(step=self.step)

    def _end(self) -> Any:
        if self._games.solved:
            return "solved"
        if self.step >= self.config.training.steps:
            return "steps"
        return "interrupted" if self._stopping else None

    def _figures(self, rollout: Rollout) -> FiguresTaken:
        figures = {**means(self._learned), "updates": float(self.agent.updates)}
        self._learned.clear()
        # A rollout's last observations are those that are acted on next.
        figures |= self.agent.figures(rollout.observation[-1], rollout.first[-1])
        return FiguresTaken(step=self.step, figures=figures)

    def state(self) -> dict[str, Any]:
        """Give everything of the loop and the environments that a resumed run needs."""
        return {
            "step": self.step,
            **self._games.state(),
            "learned": [asdict(one) for one in self._learned],
            **self._player.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave. Environments that cannot be saved start new games."""
        self.step = self._last_checkpoint = int(state["step"])
        self._games.restore(state)
        self._learned = [RolloutLearned(**one) for one in state["learned"]]
        self._player.restore(state)
