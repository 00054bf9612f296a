"""Playing rollouts: what the synchronous loop and every asynchronous worker do the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..agents import ActorCritic, Rollout
from ..envs import Environments, EpisodeCounter, FinishedEpisode
from ..runs.config import Config


@dataclass(frozen=True)
class Played:
    """Hold a rollout, and the games that ended in it, each with the steps of the rollout so far."""

    rollout: Rollout
    games: list[tuple[int, FinishedEpisode]]
    steps: int
    """Agent steps: those of all environments, less the ones that restarted a game."""


class RolloutPlayer:
    """Play environments with an agent, one rollout after the other."""

    def __init__(self, config: Config, environments: Environments, agent: ActorCritic) -> None:
        """Take the parts; the environments are reset when the first rollout begins."""
        self._config = config
        self._environments = environments
        self._agent = agent
        self._episodes = EpisodeCounter(environments.count)
        self._observation: np.ndarray | None = None
        self._first = np.ones(environments.count, bool)

    def play(self) -> Played:
        """Take `rollout_steps` steps of every environment."""
        if self._observation is None:
            self._observation = self._environments.reset()
        learning = self._config.learning
        observations, firsts = [self._observation], [self._first]
        actions, results = [], []
        games: list[tuple[int, FinishedEpisode]] = []
        steps = 0
        for _ in range(self._config.actor_critic.rollout_steps):
            action = self._agent.act(self._observation, self._first)
            result = self._environments.step(action)
            self._observation, self._first = result.observation, result.first
            actions.append(action)
            results.append(result)
            observations.append(result.observation)
            firsts.append(result.first)
            steps += int(np.count_nonzero(~result.first))
            games += [(steps, episode) for episode in self._episodes.update(result)]
        reward = np.stack([result.reward for result in results])
        clip = learning.reward_clip
        rollout = Rollout.of_steps(
            observation=np.stack(observations),
            first=np.stack(firsts),
            action=np.stack(actions),
            reward=reward if clip is None else np.clip(reward, -clip, clip),
            terminated=np.stack([result.terminated for result in results]),
            truncated=np.stack([result.truncated for result in results]),
            ignored=np.stack([result.first for result in results]),
            discount=learning.discount,
        )
        return Played(rollout, games, steps)

    def state(self) -> dict[str, Any]:
        """Give what a resumed run needs, between two rollouts."""
        state: dict[str, Any] = {"environments": None}
        if self._environments.can_save_state:
            state["environments"] = self._environments.state()
            state["episodes"] = self._episodes.state()
            state["first"] = self._first.tolist()
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave. Environments that cannot be saved start new games."""
        if state["environments"] is not None:
            self._observation = self._environments.restore(state["environments"])
            self._episodes.restore(state["episodes"])
            self._first = np.asarray(state["first"], bool)
