"""Noisy policies and rollout buffers for Stable-Baselines3's PPO and A2C."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor
from torch.distributions import Categorical

from ...layers import Draw, draw, hold, mean_weights, noisy_layers, release, using
from ..acting import ActingWeights
from ..host import run_under, takes_rows
from .algorithm import ALGORITHMS
from .noise_options import add_noise
from .noisy_policy import NoisyPolicy, batch_size, draw_for

_NUMBERS_OF_A_FORWARD = 1 << 16
"""Values of ε that are taken to cost as much as one more forward and backward."""


class ObservationsOfRows(NamedTuple):
    """A minibatch's observations and their environments, which are rows (B,) of the draw."""

    observations: PyTorchObs
    rows: np.ndarray


class NoisyRolloutBuffer(RolloutBuffer):
    """A rollout buffer that records which environment each sample came from.

    For one draw of noise per environment, pass it as `rollout_buffer_class` beside
    `policy_kwargs={"draw_per_environment": True}`. Only the noisy policies accept its samples.
    Raises TypeError for observations that are dicts.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        *arguments: Any,
        **options: Any,
    ) -> None:
        if isinstance(observation_space, spaces.Dict):
            raise TypeError(
                f"{type(self).__name__}: got observations that are dicts; pass "
                "rollout_buffer_class=NoisyDictRolloutBuffer"
            )
        super().__init__(buffer_size, observation_space, *arguments, **options)

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> Any:
        samples = super()._get_samples(batch_inds, env)
        return _with_rows(samples, batch_inds, self.buffer_size)


class NoisyDictRolloutBuffer(DictRolloutBuffer):
    """`NoisyRolloutBuffer` for observations that are dicts."""

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> Any:
        samples = super()._get_samples(batch_inds, env)
        return _with_rows(samples, batch_inds, self.buffer_size)


def _with_rows(samples: Any, indices: np.ndarray, steps: int) -> Any:
    # The host lays its samples out environment by environment.
    observations = ObservationsOfRows(samples.observations, indices // steps)
    return samples._replace(observations=observations)


class RolloutPolicy(NoisyPolicy, ActorCriticPolicy):
    """A policy that holds a draw over a rollout, and learns from that rollout under the same draw.

    The first step of collection after an update redraws. Until then, every forward uses the draw,
    so that the policy that learns is the one that acted (§3.1).
    """

    def __init__(
        self,
        *arguments: Any,
        noise_in: str = "last",
        draw_per_environment: bool = False,
        **options: Any,
    ) -> None:
        self.draw_per_environment = draw_per_environment
        self._rollout_draw: Draw | None = None
        self._updated = self._starts = True
        self._holds = False
        super().__init__(*arguments, noise_in=noise_in, **options)

    def _check_algorithm(self) -> BaseAlgorithm | None:
        algorithm = super()._check_algorithm()
        if isinstance(algorithm, OnPolicyAlgorithm):
            buffers = (NoisyRolloutBuffer, NoisyDictRolloutBuffer)
            self._check_buffer(isinstance(algorithm.rollout_buffer, buffers))
        return algorithm

    @property
    def noisy_network(self) -> ActorCriticPolicy:
        """The network whose noise explores."""
        return self

    def _build(self, lr_schedule: Schedule) -> None:
        # The host initialises every nn.Linear here, so noise comes after it.
        super()._build(lr_schedule)
        self._make_noisy(lr_schedule)

    def _make_noisy(self, lr_schedule: Schedule) -> None:
        add_noise(self, self._noise, policy=type(self).__name__)
        self._acting = ActingWeights(self)
        self._build_optimizer(lr_schedule)

    def _after_update(self) -> None:
        self._updated = True

    def set_training_mode(self, mode: bool) -> None:
        """Set the host's mode; a collection begins with eval mode, and redraws after an update."""
        super().set_training_mode(mode)
        self._starts = not mode and self._updated

    def predict(self, *arguments: Any, **options: Any) -> Any:
        """Choose actions; the host does not collect by this, so no rollout starts here."""
        starts = self._starts
        try:
            return super().predict(*arguments, **options)
        finally:
            self._starts = starts

    def forward(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Return action, value and log-probability for the host's collection.

        With `deterministic`, the action is the policy's mode under the mean weights. With a draw
        for each environment, any other number of observations is evaluated by the mean weights.
        """
        if self._starts and not deterministic and noisy_layers(self):
            self._draw_for_rollout(obs)
        if deterministic or self._lacks_draws_for(obs):
            with mean_weights(self):
                return super().forward(obs, deterministic)
        if self._rollout_draw is None or self._holds or not self._obeys_rollout():
            with self._acting.used():
                return super().forward(obs)
        return self._under(self._rollout_draw, super().forward, obs)

    def _draw_for_rollout(self, obs: PyTorchObs) -> None:
        rows = batch_size(obs) if self.draw_per_environment else None
        self._rollout_draw = draw(self, rows=rows)
        self._updated = self._starts = False
        self._holds = rows is None or takes_rows(self, self._whole, obs)
        if self._holds:
            hold(self, drawn=self._rollout_draw)
        else:
            release(self)

    def _lacks_draws_for(self, obs: PyTorchObs) -> bool:
        """Return whether the draws in force are those of another number of environments."""
        drawn = self._rollout_draw
        if drawn is None or drawn.rows in (None, batch_size(obs)):
            return False
        return self._obeys_rollout()

    def _obeys_rollout(self) -> bool:
        """Return whether there is noise, and neither `using` nor `mean_weights` sets it."""
        layers = noisy_layers(self).values()
        return bool(layers) and all(one.noise_state.override is None for one in layers)

    def _whole(self, obs: Any) -> Any:
        return super().forward(obs, deterministic=True)

    def _under(
        self,
        drawn: Draw | None,
        forward: Callable[..., Any],
        obs: Any,
        *more: Tensor,
        rows: Any = None,
    ) -> Any:
        """Run a forward of the host on observations under a draw, or under the mean weights."""
        return run_under(
            drawn,
            self,
            lambda one: forward(*one),
            (obs, *more),
            rows=rows,
            probe=(self._whole, obs),
            apart=rows is not None and self._is_large(drawn, len(rows)),
        )

    def _is_large(self, drawn: Draw | None, samples: int) -> bool:
        """Return whether a forward for each draw is faster than an ε for each sample.

        An ε of independent noise has the size of all weights, gigabytes for a minibatch of images.
        """
        if drawn is None or self._noise.noise == "factorised":
            return False
        numbers = samples * sum(flat.shape[-1] for flat in drawn.flats)
        return numbers > (drawn.rows or 1) * _NUMBERS_OF_A_FORWARD

    def get_distribution(self, obs: PyTorchObs, *states: Any, **named: Any) -> Any:
        """Return the policy under the draw in force.

        With a draw for each environment, any other number of observations is evaluated by the mean
        weights.
        """
        if self._lacks_draws_for(obs):
            with mean_weights(self):
                return super().get_distribution(obs, *states, **named)
        drawn = self._rollout_draw
        if drawn is None or self._holds or not self._obeys_rollout():
            return super().get_distribution(obs, *states, **named)
        # Layers that see other rows hold nothing; those of the output layer are the batch's.
        latent = self._under(drawn, self._latent_of_actor, obs)
        with using(self, drawn):
            return self._get_action_dist_from_latent(latent)

    def _latent_of_actor(self, obs: PyTorchObs) -> Tensor:
        features = BaseModel.extract_features(self, obs, self.pi_features_extractor)
        return self.mlp_extractor.forward_actor(features)

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """Estimate values under the draw in force: (N, 1).

        With a draw for each environment, any other number of observations is evaluated by the mean
        weights: at a time limit, the host asks for one value without the environment's number.
        """
        drawn = self._rollout_draw
        if drawn is None or drawn.rows is None or not self._obeys_rollout():
            with self._acting.used():
                return super().predict_values(obs)
        fits = drawn.rows == batch_size(obs)
        return self._under(drawn if fits else None, super().predict_values, obs)

    def evaluate_actions(
        self, obs: PyTorchObs | ObservationsOfRows, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values, log-probabilities and entropy under the draw of the rollout.

        Raises ValueError if each environment has its own draw and `obs` does not name the rows.
        """
        if not isinstance(obs, ObservationsOfRows):
            self._check_buffer(not self.draw_per_environment)
            return super().evaluate_actions(obs, actions)
        drawn = self._rollout_draw
        if drawn is None or drawn.rows is None:
            return super().evaluate_actions(obs.observations, actions)
        evaluate = super().evaluate_actions
        return self._under(drawn, evaluate, obs.observations, actions, rows=obs.rows)

    def _check_buffer(self, knows_rows: bool) -> None:
        if self.draw_per_environment and not knows_rows:
            raise ValueError(
                f"{type(self).__name__}: draw_per_environment=True needs rollout_buffer_class="
                "NoisyRolloutBuffer (NoisyDictRolloutBuffer for a dict), which says whose draw "
                "each sample came from"
            )

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        if deterministic:
            return self.greedy(observation, None)
        return self._under(draw_for(self, observation), super()._predict, observation)

    def greedy(self, obs: PyTorchObs, drawn: Draw | None) -> Tensor:
        """Choose the mode of the policy under a draw, or under the mean weights: (N, …)."""
        mode = functools.partial(super()._predict, deterministic=True)
        return self._under(drawn, mode, obs)

    def action_values(self, obs: PyTorchObs, drawn: Draw | None) -> Tensor:
        """Return the logits of all discrete actions under a draw, or the mean weights.

        Their shape is (N, actions). Raises TypeError for other actions, which have no logits.
        """
        return self._under(drawn, lambda one: self._logits(self.get_distribution(one)), obs)

    def _logits(self, distribution: Any) -> Tensor:
        policy = distribution.distribution
        if not isinstance(policy, Categorical):
            raise TypeError(f"got {type(self.action_space).__name__} actions, expected Discrete")
        return policy.logits

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"draw_per_environment": self.draw_per_environment}
        return {**super()._get_constructor_parameters(), **own}


class NoisyPPOPolicy(RolloutPolicy):
    """Exploration by learned noise in `stable_baselines3.PPO`: `PPO(NoisyPPOPolicy, env, …)`.

    `policy_kwargs` accepts the options of the host's policy, and also `noise` and `sigma0` (as in
    `noisynet.NoisyLinear`); `noise_in`: "last" (the outputs, the default), "head" (every fully
    connected layer after the features extractor) or "all" (those in it, too); `learned` (if false,
    σ keeps its initial value, and a scale can adapt); and `draw_per_environment`, which needs
    `rollout_buffer_class=NoisyRolloutBuffer`. The observations determine the features extractor.
    Raises TypeError in another algorithm, and ValueError for unknown options or a network without
    `nn.Linear`; warns of an entropy bonus left on. Source: Fortunato et al., §3.1.
    """

    algorithm = ALGORITHMS["NoisyPPOPolicy"]


class NoisyA2CPolicy(RolloutPolicy):
    """Exploration by learned noise in `stable_baselines3.A2C`: `A2C(NoisyA2CPolicy, env, …)`.

    Options, errors and source are those of `NoisyPPOPolicy`; the paper's A3C has
    `noise="independent"`.
    """

    algorithm = ALGORITHMS["NoisyA2CPolicy"]
