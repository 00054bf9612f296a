"""Environments with their current observations and games, and rollouts played in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..agents import ActingPass, ActorCritic, ParallelQLearning, Rollout
from ..envs import Environments, EpisodeCounter, FinishedEpisode, Step


class Player:
    """N environments played step by step: in a run's process, a worker or a sampler."""

    def __init__(self, environments: Environments, reward_clip: float | None = None) -> None:
        """Take the environments; for learning alone, rewards are clipped to ±`reward_clip`."""
        self.environments = environments
        self._reward_clip = reward_clip
        self._episodes = EpisodeCounter(environments.count)
        self._observation: np.ndarray | None = None
        self.first = np.ones(environments.count, bool)
        """(N,): whether the current observation is the first of a game."""

    @property
    def observation(self) -> np.ndarray:
        """The current observations (N, …); the first access resets the environments."""
        if self._observation is None:
            self._observation = self.environments.reset()
        return self._observation

    def advance(self, result: Step) -> list[FinishedEpisode]:
        """Make a step's observations the current ones; return the games that ended."""
        self._observation, self.first = result.observation, result.first
        return self._episodes.update(result)

    def clipped(self, reward: np.ndarray) -> np.ndarray:
        """Return the rewards to learn from, clipped if `reward_clip` is set."""
        clip = self._reward_clip
        return reward if clip is None else np.clip(reward, -clip, clip)

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain JSON values."""
        state: dict[str, Any] = {"environments": None}
        if self.environments.can_save_state and self._observation is not None:
            state["environments"] = self.environments.state()
            state["episodes"] = self._episodes.state()
            state["first"] = self.first.tolist()
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned. Environments that cannot be saved start new games."""
        if state["environments"] is not None:
            self._observation = self.environments.restore(state["environments"])
            self._episodes.restore(state["episodes"])
            self.first = np.asarray(state["first"], bool)


@dataclass(frozen=True)
class PlayedRollout:
    """A rollout, and the games that ended in it."""

    rollout: Rollout
    games: list[tuple[int, FinishedEpisode]]
    """The games, each with the rollout's agent steps up to the game's end."""
    steps: int
    """Agent steps: those of all environments, less the ones that restarted a game."""
    passes: list[ActingPass]
    """The forward passes that chose the actions; empty unless the agent is value-based."""


class GrowingRollout:
    """A rollout that is being played, one vector step after the other."""

    def __init__(self, player: Player, agent: ParallelQLearning | ActorCritic) -> None:
        """Begin at the player's current observations."""
        self._player = player
        self._agent = agent
        self._passes: list[ActingPass] = []
        self._observations, self._firsts = [player.observation], [player.first]
        self._actions: list[np.ndarray] = []
        self._results: list[Step] = []
        self._games: list[tuple[int, FinishedEpisode]] = []
        self.steps = 0
        """Agent steps so far."""

    def act(self, step: int) -> np.ndarray:
        """Choose the next actions (N,); `step` is the run's step at which the rollout began."""
        player, agent = self._player, self._agent
        action = agent.act(player.observation, step + self.steps, player.first)
        if isinstance(agent, ParallelQLearning) and agent.acting_pass is not None:
            self._passes.append(agent.acting_pass)
        return action

    def add(self, action: np.ndarray, result: Step) -> None:
        """Record the actions and the vector step that they led to."""
        self._actions.append(action)
        self._results.append(result)
        self.steps += int(np.count_nonzero(~result.first))
        self._games += [(self.steps, episode) for episode in self._player.advance(result)]
        self._observations.append(result.observation)
        self._firsts.append(result.first)

    def played(self, discount: float) -> PlayedRollout:
        """Return the rollout; `discount` is γ, per step."""
        results = self._results
        rollout = Rollout.of_steps(
            observation=np.stack(self._observations),
            first=np.stack(self._firsts),
            action=np.stack(self._actions),
            reward=self._player.clipped(np.stack([result.reward for result in results])),
            terminated=np.stack([result.terminated for result in results]),
            truncated=np.stack([result.truncated for result in results]),
            ignored=np.stack([result.first for result in results]),
            discount=discount,
        )
        return PlayedRollout(rollout, self._games, self.steps, self._passes)


def play_rollout(
    player: Player,
    agent: ParallelQLearning | ActorCritic,
    *,
    steps: int,
    discount: float,
    step: int = 0,
) -> PlayedRollout:
    """Play `steps` steps of every environment; `discount` is γ, per step.

    `step` is the run's step at which the rollout begins, on which ε depends.
    """
    growing = GrowingRollout(player, agent)
    for _ in range(steps):
        action = growing.act(step)
        growing.add(action, player.environments.step(action))
    return growing.played(discount)
