"""The agent that a config describes: its network, optimizer, exploration and update."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .. import control
from ..agents import (
    ActorCritic,
    Agent,
    HeldTarget,
    LinearEpsilon,
    Munchausen,
    ParallelQLearning,
    QLearning,
    Revival,
    StepPriorities,
    StepSize,
    adam,
    measure_frames,
)
from ..agents.frame_statistics import ENVIRONMENTS
from ..agents.noise_control import Control
from ..layers import noisy_layers
from ..networks import (
    ImpalaSettings,
    NoiseSettings,
    QNetwork,
    build_actor_critic_network,
    build_q_network,
    make_own_network,
)
from ..runs.config import Config
from ..runs.seeds import SEEDS
from . import own_objects
from .environments import make_environments, side_by_side

_SEEDED = threading.RLock()
"""Held while torch's global generator has a seed of ours: other threads may build agents too."""


def build_agent(
    config: Config,
    observation_shape: tuple[int, ...],
    actions: int,
    *,
    environments: int | None = None,
) -> Agent:
    """Build the agent, with its parameters initialised from the run's seed.

    It acts in as many `environments` at a time, by default in those of the config. Raises
    ValueError for observations that its network does not accept, or if device or precision is still
    "auto".
    """
    learning, exploration, training = config.learning, config.exploration, config.training
    if training.device == "auto" or training.precision == "auto":
        raise ValueError("device and precision: got 'auto', expected what was chosen for it")
    common: dict[str, Any] = {
        "actions": actions,
        "environments": environments or config.environment.environments,
        "max_gradient_norm": learning.max_gradient_norm,
        "draw_per_environment": exploration.draw_per_environment,
        "control": _control(config),
        "precision": training.precision,
        "revival": _revival(config),
        "seed": training.seed,
    }
    body = _body(config)
    # Initialising the network does not change the caller's random state.
    with _SEEDED, torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.stream("network"))
        if learning.is_actor_critic:
            section = config.actor_critic
            policy = build_actor_critic_network(
                observation_shape, actions, lstm_size=section.lstm_size, **body
            ).to(training.device)
            _check_noise(config, policy)
            return ActorCritic(
                policy,
                build_optimizer(policy, config),
                gae_lambda=section.gae_lambda,
                value_coefficient=section.value_coefficient,
                entropy_bonus=section.entropy_bonus,
                **common,
            )
        values = _q_network(config, observation_shape, actions, body).to(training.device)
        _check_noise(config, values)
    if learning.algorithm == "pqn":
        return _parallel(config, values, common)
    return QLearning(
        values,
        build_optimizer(values, config),
        double=learning.double,
        loss=learning.loss,
        munchausen=_munchausen(config),
        quantile_samples=(config.network.quantiles, config.network.target_quantiles),
        redraw=exploration.redraw,
        choice_draw=exploration.choice_draw,
        epsilon=_epsilon(config),
        penalty=_penalty(config),
        warmup_steps=learning.warmup_steps,
        **common,
    )


def _q_network(
    config: Config, observation_shape: tuple[int, ...], actions: int, body: dict[str, Any]
) -> QNetwork:
    network = config.network
    if network.own_network is not None:
        make = own_objects.maker("own_network", network.own_network)
        return make_own_network(make, observation_shape, actions, body["noise"])
    support = None
    if network.atoms:
        support = torch.linspace(network.value_min, network.value_max, network.atoms)
    return build_q_network(
        observation_shape,
        actions,
        dueling=network.dueling,
        support=support,
        quantiles=network.acting_quantiles if network.quantiles else 0,
        cosines=network.cosines,
        **body,
    )


def _check_noise(config: Config, network: nn.Module) -> None:
    """Raise ValueError if a user's own network is noisy but the config's exploration is not."""
    if not config.exploration.has_noise and noisy_layers(network):
        raise ValueError(
            f"exploration: got {config.exploration.exploration}, expected noise or both: the "
            "network that was given has noisy layers"
        )


def _parallel(config: Config, network: QNetwork, common: dict[str, Any]) -> ParallelQLearning:
    section, redraw = config.rollouts, config.exploration.redraw
    return ParallelQLearning(
        network,
        build_optimizer(network, config),
        return_lambda=section.return_lambda,
        epochs=section.epochs,
        minibatches=section.minibatches,
        loss=config.learning.loss,
        priorities=_step_priorities(config),
        learning_draw=section.learning_draw,
        target_draw=section.target_draw,
        redraw="rollout" if redraw == "update" else redraw,
        epsilon=_epsilon(config),
        penalty=_penalty(config),
        **common,
    )


def _step_priorities(config: Config) -> StepPriorities | None:
    learning = config.learning
    if not learning.prioritised:
        return None
    return StepPriorities(learning.priority_exponent, learning.priority_epsilon)


def _munchausen(config: Config) -> Munchausen | None:
    learning = config.learning
    if not learning.munchausen:
        return None
    assert learning.entropy_temperature is not None, "a config without it is refused"
    return Munchausen(
        weight=learning.munchausen,
        temperature=learning.entropy_temperature,
        least=learning.log_policy_least,
    )


def _body(config: Config) -> dict[str, Any]:
    """Return the arguments that the builders of both kinds of network have in common."""
    section, exploration = config.network, config.exploration
    torso = section.torso if section.is_torso_ours else own_objects.maker("torso", section.torso)
    noise = None
    if exploration.has_noise:
        noise = NoiseSettings(
            kind=exploration.noise_kind,
            sigma0=exploration.sigma0,
            learned=exploration.learned_sigma,
            where=exploration.noise_in,
        )
    return {
        "torso": torso,
        "torso_hidden": section.torso_hidden,
        "impala": ImpalaSettings(
            width=section.torso_width,
            pooling=section.torso_pooling,
            spectral_norm=section.spectral_norm,
        ),
        "head_hidden": section.head_hidden,
        "standardise_frames": section.standardise_frames,
        "layer_norm": section.layer_norm and section.layer_norm_in == "all",
        "head_layer_norm": section.layer_norm,
        "noise": noise,
    }


def _revival(config: Config) -> Revival | None:
    section = config.plasticity
    if not (section.redo_every or section.shrink_every or section.reset_every):
        return None
    return Revival(
        redo_every=section.redo_every,
        dormant_threshold=section.dormant_threshold,
        shrink_every=section.shrink_every,
        shrink_factor=section.shrink_factor,
        reset_every=section.reset_every,
    )


def _epsilon(config: Config) -> LinearEpsilon | None:
    exploration = config.exploration
    if not exploration.has_epsilon:
        return None
    return LinearEpsilon(
        exploration.epsilon_start,
        exploration.epsilon_end,
        exploration.epsilon_steps,
        begin=config.learning.warmup_steps if config.learning.has_replay else 0,
        until=exploration.epsilon_until,
    )


_SCHEDULES = {
    "linear": control.Linear,
    "exponential": control.Exponential,
    "cosine": control.Cosine,
}


def _control(config: Config) -> Control | None:
    """Build the schedule or target for the scale of the noise; None if the scale stays 1."""
    section = config.exploration
    if not section.has_noise:
        return None
    if section.noise_target is not None:
        return HeldTarget(
            effective_epsilon=section.noise_target,
            scale=section.noise_scale,
            every=section.noise_target_every,
        )
    if section.noise_schedule != "constant":
        until = section.noise_scale_steps or config.training.steps
        return _SCHEDULES[section.noise_schedule](
            section.noise_scale, section.noise_scale_end, until
        )
    return None if section.noise_scale == 1 else control.Constant(section.noise_scale)


def _penalty(config: Config) -> control.PenaltyWeight | None:
    section = config.exploration
    if not section.has_noise or not section.sigma_penalty:
        return None
    assert section.penalty_high is not None, "the config has it beside a penalty"
    return control.PenaltyWeight(section.sigma_penalty, section.penalty_low, section.penalty_high)


def build_optimizer(network: nn.Module, config: Config) -> torch.optim.Optimizer:
    """Build Adam, RAdam, or the RMSProp of Mnih et al. 2015 without momentum."""
    learning = config.learning
    if learning.optimizer == "adam":
        return adam(
            network.parameters(),
            learning_rate=learning.learning_rate,
            epsilon=learning.adam_epsilon,
        )
    if learning.optimizer == "radam":
        return torch.optim.RAdam(
            network.parameters(),
            lr=learning.learning_rate,
            eps=learning.adam_epsilon,
            foreach=True,
        )
    return torch.optim.RMSprop(
        network.parameters(),
        lr=learning.learning_rate,
        alpha=learning.rmsprop_decay,
        eps=learning.rmsprop_epsilon,
        centered=learning.rmsprop_centred,
    )


def step_size(config: Config) -> StepSize:
    """Build the step size's schedule by agent steps; with a replay, by those since the warm-up."""
    learning = config.learning
    last = learning.learning_rate_steps or config.training.steps
    if learning.has_replay:
        last = max(last - learning.warmup_steps, 1)
    return StepSize(learning.learning_rate, learning.final_learning_rate, last)


def measure_frames_of(
    config: Config, agent: Agent, tell: Callable[[str], object] = lambda _: None
) -> None:
    """Measure the game's frames for the torsos of a new agent, if the config standardises them.

    The frames are from separate games with a seed of their own, and do not count as steps. `tell`
    is called first. Raises ValueError for a game whose frames are all the same.
    """
    if not config.network.standardise_frames:
        return
    seed = config.training.stream("frames") % SEEDS
    tell("measuring the mean frame of random play")
    count = side_by_side(config, ENVIRONMENTS)
    environments = make_environments(config, count=count, seed=seed)
    try:
        measure_frames(agent, environments, seed)
    finally:
        environments.close()
