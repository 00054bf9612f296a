"""Samplers: each plays its own environments, with its own noise, under the learner's weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import nn

from ..agents import ActorCritic, ParallelQLearning, QLearning
from ..assemble import build_agent, make_environments
from ..assemble.assembler import update_schedule
from ..envs import Environments, FinishedEpisode
from ..layers import held
from ..training.a3c.worker import renumbered
from ..training.player import Player, play_rollout
from .messages import (
    Assignment,
    Fragment,
    Order,
    ReplayFragment,
    Report,
    RolloutFragment,
    Weights,
)

_Play = tuple[Fragment, list[tuple[int, FinishedEpisode]], int]
"""A fragment, the games that ended in it, each with the steps up to then, and its agent steps."""


class Sampler(ABC):
    """A player of fragments, one for each order."""

    def __init__(self, assignment: Assignment) -> None:
        """Make the environments, and the acting agent with seeds of its own.

        Games begin with the first order.
        """
        self.assignment = assignment
        self.config = assignment.own_config()
        self.environments: Environments = make_environments(self.config)
        self.player = Player(self.environments, self.config.learning.reward_clip)
        self.agent: Any = build_agent(self.config, assignment.observation_shape, assignment.actions)
        self._fragments = 0

    def play(self, order: Order, weights: Weights | None) -> tuple[Report, Fragment]:
        """Play a fragment, under new weights if some are given."""
        if weights is not None:
            _load(self.agent.network, weights)
        fragment, games, steps = self._play(order)
        report = Report(
            number=self._fragments,
            version=order.version,
            steps=steps,
            games=games,
            nbytes=_nbytes(fragment),
            noise=self._measured() if order.measure else {},
        )
        self._fragments += 1
        return report, fragment

    def close(self) -> None:
        """Free what the environments hold."""
        self.environments.close()

    @abstractmethod
    def _play(self, order: Order) -> _Play: ...

    def _measured(self) -> dict[str, float]:
        """Return figures of the noise's effect, with environments numbered as in the whole run."""
        figures = self.agent.behaviour(self.player.observation, self.player.first)
        return renumbered(figures, self.assignment.number * self.environments.count)


class ReplaySampler(Sampler):
    """A sampler for a replay, which acts as the value-based agent does.

    With `redraw` "update", acting noise is redrawn whenever an update of the learner comes due.
    That depends on the steps of all samplers, which each sampler estimates from its own.
    """

    agent: QLearning

    def __init__(self, assignment: Assignment) -> None:
        """Make environments and agent, and the schedule of the learner's updates."""
        super().__init__(assignment)
        self._schedule = update_schedule(self.config)

    def _play(self, order: Order) -> _Play:
        player, section = self.player, self.config.scale
        samplers = section.actors or 1
        rows: list[dict[str, np.ndarray]] = []
        games: list[tuple[int, FinishedEpisode]] = []
        steps = 0
        for _ in range(section.fragment_steps):
            observation, first = player.observation, player.first
            action = self._act(order.step + samplers * steps)
            result = self.environments.step(action)
            rows.append(
                {
                    "frame": self.environments.newest_frame(observation),
                    "action": action.astype(np.int32),
                    "reward": player.clipped(result.reward).astype(np.float32),
                    "terminated": result.terminated,
                    "truncated": result.truncated,
                    "first": first,
                    "ignored": result.first,
                }
            )
            steps += int(np.count_nonzero(~result.first))
            games += [(steps, episode) for episode in player.advance(result)]
        fragment = ReplayFragment(
            **{name: np.stack([row[name] for row in rows]) for name in rows[0]}
        )
        return fragment, games, steps

    def _act(self, step: int) -> np.ndarray:
        """Act at an estimated step of the run; before that, redraw if an update has come due."""
        agent = self.agent
        due = self._schedule.updates_due(step)
        if due > agent.updates:
            agent.updates = due
            if agent.noise is not None:
                agent.noise.after_update()
        return agent.act(self.player.observation, step, self.player.first)


class RolloutSampler(Sampler):
    """A sampler of rollouts.

    The draw that acted last is sent with the fragment. If a draw is held over the rollout, the
    learner thus runs the network under the same noise that acted (arXiv 1706.10295, §3.1).
    """

    agent: ActorCritic | ParallelQLearning

    def _play(self, order: Order) -> _Play:
        played = play_rollout(
            self.player,
            self.agent,
            steps=self.config.rollouts.rollout_steps,
            discount=self.config.learning.discount,
            step=order.step,
        )
        # If each step has a draw of its own, only the last one is sent.
        drawn = None if self.agent.noise is None else held(self.agent.network)
        self.agent.next_rollout()
        rollout = played.rollout
        fragment = RolloutFragment(
            opening=rollout.observation[0],
            frame=self.environments.newest_frame(rollout.observation[1:]),
            first=rollout.first,
            action_t=rollout.action_t,
            reward_t=rollout.reward_t,
            discount_t=rollout.discount_t,
            goes_on_t=rollout.goes_on_t,
            taken_t=rollout.taken_t,
            drawn=drawn,
        )
        return fragment, played.games, played.steps


def build_sampler(assignment: Assignment) -> Sampler:
    """Build the kind of sampler that the config's learner needs."""
    kind = ReplaySampler if assignment.config.learning.has_replay else RolloutSampler
    return kind(assignment)


def weights_of(network: nn.Module) -> Weights:
    """Copy a network's state dictionary into new arrays, since learning goes on meanwhile."""
    return {
        name: tensor.detach().to("cpu", copy=True).numpy()
        for name, tensor in network.state_dict().items()
    }


def _load(network: nn.Module, weights: Weights) -> None:
    # Ray's arrays are read-only memory that processes share: make tensors of copies.
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
