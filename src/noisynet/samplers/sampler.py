"""A sampler: plays its own environments under weights that it is sent, with noise of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import nn

from ..agents import ActorCritic, QLearning, make_environments
from ..envs import Environments, EpisodeCounter, FinishedEpisode
from ..layers import held
from ..runs.config import Config
from ..training.rollouts import RolloutPlayer
from .messages import (
    Assignment,
    Fragment,
    Order,
    ReplayFragment,
    Report,
    RolloutFragment,
    Weights,
    newest_frames,
)


class Sampler(ABC):
    """Play fragments, one order after the other."""

    def __init__(self, assignment: Assignment) -> None:
        """Make the environments; games begin with the first order."""
        self.assignment = assignment
        self.config = assignment.own_config()
        self.environments: Environments = make_environments(self.config)
        self._fragments = 0

    def play(self, order: Order, weights: Weights | None) -> tuple[Report, Fragment]:
        """Play a fragment, under new weights where there are some."""
        if weights is not None:
            self._take(weights)
        fragment, games, steps = self._play(order)
        report = Report(
            number=self._fragments,
            version=order.version,
            steps=steps,
            games=games,
            nbytes=_nbytes(fragment),
            noise=self._numbered(self._measured()) if order.measure else {},
        )
        self._fragments += 1
        return report, fragment

    def close(self) -> None:
        """Free what the environments hold."""
        self.environments.close()

    @abstractmethod
    def _take(self, weights: Weights) -> None: ...

    @abstractmethod
    def _play(self, order: Order) -> tuple[Fragment, list[tuple[int, FinishedEpisode]], int]: ...

    @abstractmethod
    def _measured(self) -> dict[str, float]: ...

    def _numbered(self, figures: dict[str, float]) -> dict[str, float]:
        """Keep what the noise does to the policy, environments by their numbers in the run."""
        before = self.assignment.number * self.environments.count
        behaviour: dict[str, float] = {}
        for tag, value in figures.items():
            kind, _, number = tag.partition("/env_")
            if kind.startswith("noise/"):
                behaviour[f"{kind}/env_{before + int(number)}" if number else kind] = value
        return behaviour


class ReplaySampler(Sampler):
    """Play for a replay, by learned noise, ε-greedy or both, as the value-based agent does.

    Acting noise that is redrawn "by update" is redrawn as often as the learner's updates come due:
    by the steps of all samplers, which each estimates from its own.
    """

    def __init__(self, assignment: Assignment) -> None:
        """Build the acting agent, whose draws and random actions have seeds of their own."""
        super().__init__(assignment)
        self._agent = QLearning(self.config, assignment.observation_shape, assignment.actions)
        self._episodes = EpisodeCounter(self.environments.count)
        self._observation: np.ndarray | None = None
        self._first = np.ones(self.environments.count, bool)

    def _take(self, weights: Weights) -> None:
        _load(self._agent.online, weights)

    def _play(self, order: Order) -> tuple[Fragment, list[tuple[int, FinishedEpisode]], int]:
        if self._observation is None:
            self._observation = self.environments.reset()
        self._agent.schedule.thinned_from = order.thinned_from
        section = self.config.scale
        samplers = section.actors or 1
        clip = self.config.learning.reward_clip
        rows: list[dict[str, np.ndarray]] = []
        games: list[tuple[int, FinishedEpisode]] = []
        steps = 0
        for _ in range(section.fragment_steps):
            action = self._act(order.step + samplers * steps)
            result = self.environments.step(action)
            reward = result.reward if clip is None else np.clip(result.reward, -clip, clip)
            rows.append(
                {
                    "frame": newest_frames(self._observation, self.environments.stack, 1),
                    "action": action.astype(np.int32),
                    "reward": reward.astype(np.float32),
                    "terminated": result.terminated,
                    "truncated": result.truncated,
                    "first": self._first,
                    "ignored": result.first,
                }
            )
            self._observation, self._first = result.observation, result.first
            steps += int(np.count_nonzero(~result.first))
            games += [(steps, episode) for episode in self._episodes.update(result)]
        fragment = ReplayFragment(
            **{name: np.stack([row[name] for row in rows]) for name in rows[0]}
        )
        return fragment, games, steps

    def _act(self, step: int) -> np.ndarray:
        """Act at an estimated step of the run, and redraw where an update has come due by then."""
        assert self._observation is not None
        agent = self._agent
        due = agent.schedule.updates_due(step)
        if due > agent.updates:
            agent.updates = due
            if agent.noise is not None:
                agent.noise.after_update()
        return agent.act(self._observation, step, self._first)

    def _measured(self) -> dict[str, float]:
        return self._agent.figures(self._observation)


class RolloutSampler(Sampler):
    """Play rollouts for an actor-critic: one draw for each environment, held over the rollout.

    The draw travels with the fragment, so that the learner runs the network under the very noise
    that acted (arXiv 1706.10295, §3.1).
    """

    def __init__(self, assignment: Assignment) -> None:
        """Build the acting agent, whose draws and choices have seeds of their own."""
        super().__init__(assignment)
        self._agent = ActorCritic(self.config, assignment.observation_shape, assignment.actions)
        self._player = RolloutPlayer(self.config, self.environments, self._agent)
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def _take(self, weights: Weights) -> None:
        _load(self._agent.network, weights)

    def _play(
        self,
        order: Order,  # noqa: ARG002 - the policy goes by its weights alone
    ) -> tuple[Fragment, list[tuple[int, FinishedEpisode]], int]:
        drawn = None if self._agent.noise is None else held(self._agent.network)
        played = self._player.play()
        self._agent.next_rollout()
        rollout = played.rollout
        self._last = rollout.observation[-1], rollout.first[-1]
        fragment = RolloutFragment(
            opening=rollout.observation[0],
            frame=newest_frames(rollout.observation[1:], self.environments.stack, 2),
            first=rollout.first,
            action_t=rollout.action_t,
            reward_t=rollout.reward_t,
            discount_t=rollout.discount_t,
            goes_on_t=rollout.goes_on_t,
            taken_t=rollout.taken_t,
            drawn=drawn,
        )
        return fragment, played.games, played.steps

    def _measured(self) -> dict[str, float]:
        assert self._last is not None
        return self._agent.figures(*self._last)


def build_sampler(assignment: Assignment) -> Sampler:
    """Build the sampler that the config's learner wants."""
    kind = RolloutSampler if assignment.config.learning.is_actor_critic else ReplaySampler
    return kind(assignment)


def weights_of(network: nn.Module) -> Weights:
    """Copy a network's parameters into arrays of their own: learning goes on beside them."""
    return {
        name: tensor.detach().to("cpu", copy=True).numpy()
        for name, tensor in network.state_dict().items()
    }


def environments_in(config: Config) -> int:
    """Count the environments of all samplers together."""
    return (config.scale.actors or 1) * config.environment.environments


def _load(network: nn.Module, weights: Weights) -> None:
    # What Ray hands out is read-only memory that processes share.
    network.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})


def _nbytes(fragment: Fragment) -> int:
    total = 0
    for field in fields(fragment):
        value: Any = getattr(fragment, field.name)
        if isinstance(value, np.ndarray):
            total += value.nbytes
        elif value is not None:
            total += sum(flat.nbytes for flat in value.flats)
    return total
