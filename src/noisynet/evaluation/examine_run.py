"""The examination behind `noisynet doctor RUN`: the noise of a run's newest checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..agents import ActorCritic, Agent, ParallelQLearning, QLearning
from ..assemble import build_agent
from ..diagnostics import Diagnosis, Finding, doctor
from ..envs import Environments
from ..layers import mean_weights
from ..replay import Batch
from ..runs import Config, RunError, open_run
from ..runs.checkpoint import fits_config
from ..runs.evaluations import read_evaluations
from ..runs.pretrained import check_resumable
from ..runs.seeds import SEEDS
from ..training.player import Player, play_rollout
from .conditions import environments_for, on_this_machine
from .run_findings import over_the_run, returns_by_noise, sigma_figures

_SEED_OFFSET = 2_000_003
_TRANSITIONS = 64


def examine(path: Path) -> Diagnosis:
    """Check how a run's agent acts and learns, how σ changed, and how noise affects its returns.

    The agent plays some steps of its environment, with another seed than in training. The run's
    folder is only read. Raises RunError, with a one-line message, for a folder that is missing or
    damaged, and for a run without a checkpoint or without learned noise.
    """
    check_resumable(path)  # an update is examined, too
    run = open_run(path)
    config = on_this_machine(run.config)
    if not config.exploration.has_noise:
        raise RunError(
            f"RUN: got {path}, which explores by {config.exploration.exploration}, expected a run "
            "with noisy layers"
        )
    found = run.trained()
    seed = (config.training.seed + _SEED_OFFSET) % SEEDS
    with environments_for(config, seed=seed) as environments:
        with fits_config(path):
            agent = build_agent(config, environments.observation_shape, environments.action_count)
            agent.restore(found.arrays, found.state["agent"])
        if isinstance(agent, QLearning):
            diagnosis = _values(config, agent, environments, found.step)
        elif isinstance(agent, ParallelQLearning):
            diagnosis = _values_from_rollouts(config, agent, environments, found.step)
        else:
            diagnosis = _policy(config, agent, environments)
    return Diagnosis(
        [
            *diagnosis,
            # What `TrainedAgent.save` wrote has no metrics.
            over_the_run(sigma_figures(path) if run.folder.metrics_file.exists() else {}),
            returns_by_noise(read_evaluations(path)),
        ]
    )


def _values(config: Config, agent: QLearning, environments: Environments, step: int) -> Diagnosis:
    """Examine a value-based agent that learns from a replay."""
    # The warm-up's actions are uniformly random, and say nothing about noise.
    now = max(step, config.learning.warmup_steps)
    batch, observation = _played(config, agent, environments, now)
    same_game = np.zeros(len(observation), bool)

    def act(_: object) -> np.ndarray | None:
        action = agent.act(observation, now, same_game)
        # Sampled quantiles make actions differ even under one draw: there is nothing to compare.
        return None if config.network.quantiles else action

    def update() -> None:
        # With the first step size: by the end of the run it may have fallen to 0.
        agent.update(batch, config.learning.learning_rate)
        if config.exploration.redraw == "step":
            # The next action redraws the noise.
            agent.act(observation, now, same_game)

    diagnosis = doctor(
        agent.online,
        torch.from_numpy(observation).to(agent.device),
        act=act,
        evaluate=lambda _: _by_means(agent, observation),
        loss=lambda: agent.loss_and_errors(batch)[0],
        target=agent.target,
        optimizer=agent.optimizer,
        update=update,
        epsilon=agent.epsilon(now) if agent.epsilon is not None else 0.0,
    )
    if config.exploration.redraw != "episode":
        return diagnosis
    by_episode = Finding(
        "redraw between updates", "skipped", "redraw = episode: noise is kept over updates"
    )
    return Diagnosis(by_episode if one.name == by_episode.name else one for one in diagnosis)


def _values_from_rollouts(
    config: Config, agent: ParallelQLearning, environments: Environments, step: int
) -> Diagnosis:
    """Examine a value-based agent that learns from rollouts."""
    learning = config.learning
    player = Player(environments, learning.reward_clip)

    def begin() -> None:
        played = play_rollout(
            player,
            agent,
            steps=config.rollouts.rollout_steps,
            discount=learning.discount,
            step=step,
        )
        agent.begin(played.rollout, played.passes)

    def update() -> None:
        # With the first step size: by the end of the run it may have fallen to 0. The next rollout
        # redraws the acting noise.
        agent.update(learning.learning_rate)
        begin()

    begin()
    observation, same_game = player.observation, np.zeros(environments.count, bool)
    return doctor(
        agent.network,
        torch.from_numpy(observation).to(agent.device),
        act=lambda _: agent.act(observation, step, same_game),
        evaluate=lambda _: _by_means(agent, observation),
        loss=lambda: agent.loss_and_q()[0],
        optimizer=agent.optimizer,
        update=update,
        on_policy=config.rollouts.learning_draw == "acted",
        epsilon=agent.epsilon(step) if agent.epsilon is not None else 0.0,
    )


def _policy(config: Config, agent: ActorCritic, environments: Environments) -> Diagnosis:
    """Examine an actor-critic."""
    section, learning = config.actor_critic, config.learning
    player = Player(environments, learning.reward_clip)
    rollout = play_rollout(
        player, agent, steps=config.rollouts.rollout_steps, discount=learning.discount
    ).rollout
    observation, first = rollout.observation[-1], rollout.first[-1]
    core = agent.network.initial_state(len(observation))
    # The whole rollout: with few environments, its last observations are too few to judge by.
    sequence = (
        torch.from_numpy(one).to(agent.device) for one in (rollout.observation, rollout.first)
    )

    def loss() -> Tensor:
        policy_loss, value_loss, entropy = agent.loss_terms(rollout)
        bonus = section.entropy_bonus * entropy
        return policy_loss + section.value_coefficient * value_loss - bonus

    return doctor(
        agent.network,
        (*sequence, core),
        act=lambda _: agent.act(observation, 0, first),
        evaluate=lambda _: _by_means(agent, observation),
        loss=loss,
        optimizer=agent.optimizer,
        # With the first step size: by the end of the run it may have fallen to 0.
        update=lambda: agent.update(rollout, learning.learning_rate),
        on_policy=True,
        entropy_bonus=section.entropy_bonus,
    )


def _by_means(agent: Agent, observation: np.ndarray) -> np.ndarray:
    """Act by the mean weights, as `noisynet evaluate` does by default."""
    with mean_weights(agent.network):
        return agent.greedy(observation)


def _played(
    config: Config, agent: QLearning, environments: Environments, step: int
) -> tuple[Batch[np.ndarray], np.ndarray]:
    """Play some steps; return their one-step transitions and the observations after them."""
    learning = config.learning
    player = Player(environments, learning.reward_clip)
    parts: list[list[np.ndarray]] = []
    taken = 0
    while taken < _TRANSITIONS:
        observation = player.observation
        action = np.asarray(agent.act(observation, step, player.first), np.int64)
        result = environments.step(action)
        player.advance(result)
        reward = player.clipped(result.reward).astype(np.float32)
        discount = np.where(result.terminated, 0.0, learning.discount).astype(np.float32)
        real = ~result.first
        seen = (observation, action, reward, discount, result.observation)
        parts.append([one[real] for one in seen])
        taken += int(real.sum())
    tm1, action, reward, discount, t = (np.concatenate(part) for part in zip(*parts, strict=True))
    batch = Batch(
        observation_tm1=tm1,
        action_tm1=action,
        return_t=reward,
        discount_t=discount,
        observation_t=t,
    )
    return batch, player.observation
