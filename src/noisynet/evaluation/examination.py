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
from ..runs import Config, RunError, open_run, read_metrics
from ..runs.checkpoint import fits_config
from ..runs.evaluations import Evaluation, newest_by_noise, read_evaluations
from ..runs.seeds import SEEDS
from ..training.player import Player, play_rollout
from .conditions import environments_for, on_this_machine
from .scores import mean_difference_interval

_SEED_OFFSET = 2_000_003
_TRANSITIONS = 64
_COLLAPSED = 0.01
"""Share of its first value below which mean |σ| counts as collapsed."""
_EXPLODED = 10.0


def examine(path: Path) -> Diagnosis:
    """Check how a run's agent acts and learns, how σ changed, and how noise affects its returns.

    The agent plays some steps of its environment, with another seed than in training. The run's
    folder is only read. Raises RunError, with a one-line message, for a folder that is missing or
    damaged, and for a run without a checkpoint or without learned noise.
    """
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


def sigma_figures(path: Path) -> dict[str, tuple[float, float]]:
    """Read the first and the last mean |σ| of each layer from a run's metrics.

    In the metrics σ is multiplied by the scale; here the scale is divided out again.
    """
    figures: dict[str, tuple[float, float]] = {}
    for record in read_metrics(path):
        scale = record.get("noise/scale", 1.0)
        if not isinstance(scale, int | float) or not scale:
            continue
        for tag, value in record.items():
            if tag.startswith("sigma/") and isinstance(value, int | float):
                learned = float(value) / scale
                first = figures.get(tag, (learned, 0.0))[0]
                figures[tag] = (first, learned)
    return {tag.removeprefix("sigma/"): pair for tag, pair in figures.items()}


def over_the_run(figures: dict[str, tuple[float, float]]) -> Finding:
    """Check how mean |σ| of each layer changed over a run, from {layer: (first, last)}."""
    name = "sigma over the run"
    if not figures:
        return Finding(name, "skipped", "no figures of σ in its metrics yet")
    ratios = {layer: last / first if first else 1.0 for layer, (first, last) in figures.items()}
    lowest, highest = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
    for layer, bad, word in (
        (lowest, ratios[lowest] < _COLLAPSED, "collapsed"),
        (highest, ratios[highest] > _EXPLODED, "exploded"),
    ):
        if bad:
            first, last = figures[layer]
            return Finding(
                name,
                "fail",
                f"mean |σ| of {layer!r} {word}: {first:.3g} at first, {last:.3g} now",
                "look at the step size, weight decay and the scale of the rewards",
            )
    if all(first == last for first, last in figures.values()):
        return Finding(name, "skipped", "one line of figures, or σ has not moved between them")
    return Finding(
        name,
        "pass",
        f"mean |σ| is {ratios[lowest]:.2f} to {ratios[highest]:.2f} times what it was at first",
    )


def returns_by_noise(evaluations: list[Evaluation]) -> Finding:
    """Compare the returns by the mean weights with those under noise, if the run has both.

    If they differ, either the mean weights alone do not show what was learned, or the noise costs
    returns.
    """
    name = "returns by noise"
    kinds = newest_by_noise(evaluations)
    means = kinds.pop("off", None)
    if means is None or not kinds:
        return Finding(
            name,
            "skipped",
            "no checkpoint was played both ways: `noisynet evaluate RUN` with --noise off and on",
        )
    said = [f"{means.mean:.2f} by the mean weights"]
    apart: list[str] = []
    for noise, one in kinds.items():
        said.append(f"{one.mean:.2f} {_under(noise)}")
        interval = mean_difference_interval(one.returns, means.returns)
        if interval is not None and not interval[0] <= 0 <= interval[1]:
            apart.append(
                f"{_under(noise)} {interval[0]:+.2f} to {interval[1]:+.2f} (95 % of the difference)"
            )
    message = f"{', '.join(said)}, at step {means.step:,}"
    if not apart:
        return Finding(name, "pass", f"{message}: no difference that these games show")
    return Finding(
        name,
        "warn",
        f"{message}: they part, {'; '.join(apart)}",
        "report both, and act as is better; --noise mean:8 acts by the mean of Q over draws. Where "
        "noise costs returns, lower it: noise_schedule or noise_target",
    )


def _under(noise: str) -> str:
    return "under a draw" if noise == "on" else f"by {noise}"
