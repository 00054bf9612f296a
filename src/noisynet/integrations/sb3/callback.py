"""Callbacks that watch the noise of a Stable-Baselines3 agent, and log what it does."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, EventCallback

from ...diagnostics import mean_sigma, snr
from ...diagnostics.behaviour import measure
from ...layers import draw
from ...layers.outputs import Outputs, action_deviation, outputs_under
from ...layers.restoring import buffers_preserved
from .algorithm import ALGORITHMS
from .noisy_policy import NoisyPolicy, uncompiled


class WatchingCallback(BaseCallback):
    """A callback that stores the last `observations` observations of a noisy policy.

    Raises TypeError for a model without a noisy policy and inside a callback for events, such as
    EveryNTimesteps, and ValueError for numbers that are too small.
    """

    def __init__(self, *, every: int, observations: int, draws: int, verbose: int = 0) -> None:
        super().__init__(verbose)
        for name, value, least in (
            ("every", every, 1),
            ("observations", observations, 1),
            ("draws", draws, 2),
        ):
            if value < least:
                raise ValueError(
                    f"{type(self).__name__}: {name}: got {value}, expected at least {least}"
                )
        self.every, self.observations, self.draws = every, observations, draws
        self._seen: deque[Any] = deque()
        self._watched: NoisyPolicy | None = None

    def _init_callback(self) -> None:
        self._check_parent()
        policy = self.policy()
        # A training that goes on may call `learn` for less than `every` steps at a time.
        if policy is not self._watched or self.model.num_timesteps == 0:
            self._seen = deque(maxlen=max(1, self.observations // self.training_env.num_envs))
            self._begin()
            self._watched = policy

    def _begin(self) -> None:
        """Prepare for a training from the model's present step on."""
        raise NotImplementedError

    def _on_training_start(self) -> None:
        # A CallbackList inside a callback for events sets the parent after `_init_callback`.
        self._check_parent()

    def _check_parent(self) -> None:
        """Raise TypeError inside a callback for events, which forwards no rollout."""
        if isinstance(self.parent, EventCallback):
            raise TypeError(
                f"{type(self).__name__}: got {type(self.parent).__name__} around it, which "
                "forwards steps alone, expected it in the list of callbacks; `every` sets its "
                "interval"
            )

    def policy(self) -> NoisyPolicy:
        """Return the model's policy.

        Raises RuntimeError before the first `learn`, and TypeError if it is not a noisy one.
        """
        if not hasattr(self, "model"):
            raise RuntimeError(
                f"{type(self).__name__}: it has no model yet, pass it to learn(…, callback=…) first"
            )
        policy = uncompiled(self.model.policy)
        if not isinstance(policy, NoisyPolicy):
            expected = ", ".join(ALGORITHMS)
            raise TypeError(
                f"{type(self).__name__}: got {type(policy).__name__}, expected one of {expected}"
            )
        return policy

    def _on_step(self) -> bool:
        self._seen.append(self.locals["new_obs"])
        return True

    def outputs(self, generator: torch.Generator) -> Outputs:
        """Return values, or continuous actions, for the observations, under draws and means."""
        policy = self.policy()
        seen = list(self._seen)
        if isinstance(seen[0], dict):
            stacked = {key: np.concatenate([one[key] for one in seen]) for key in seen[0]}
        else:
            stacked = np.concatenate(seen)
        observation, _ = policy.obs_to_tensor(stacked)
        discrete = isinstance(self.model.action_space, spaces.Discrete)
        values = policy.action_values if discrete else policy.greedy
        drawn = draw(policy.noisy_network, rows=self.draws, generator=generator)
        with torch.no_grad(), buffers_preserved(policy):
            return outputs_under(lambda one: values(observation, one), drawn)


class NoiseCallback(WatchingCallback):
    """A callback that logs what the noise does: `model.learn(…, callback=NoiseCallback())`.

    It logs at the first end of a rollout after every `every` steps: `noise/snr/…` and
    `noise/sigma/…` of each layer and, over the last `observations` and some `draws`, for discrete
    actions `noise/effective_epsilon` (the share of noisy greedy actions that differ from those of
    the mean weights), `noise/action_entropy`, `noise/q_spread` and `noise/q_gap`, as in
    `noisynet.behaviour`; for continuous actions `noise/action_deviation`, their standard deviation
    from those of the mean weights. It has its own random generator, so logging does not change a
    run. Raises TypeError for a model without a noisy policy and inside a callback for events, such
    as EveryNTimesteps, and ValueError for numbers that are too small.
    """

    def __init__(
        self, every: int = 1000, observations: int = 256, draws: int = 8, verbose: int = 0
    ) -> None:
        super().__init__(every=every, observations=observations, draws=draws, verbose=verbose)
        self._logged_at = 0

    def _begin(self) -> None:
        self._generator = torch.Generator(self.model.device).manual_seed(self.model.seed or 0)
        # The host sets the callback's own `num_timesteps` later.
        self._logged_at = self.model.num_timesteps

    def _on_rollout_end(self) -> None:
        if self.num_timesteps - self._logged_at < self.every:
            return
        self._logged_at = self.num_timesteps
        for name, value in self.figures().items():
            self.logger.record(f"noise/{name}", value)

    def figures(self) -> dict[str, float]:
        """Return SNR and mean |σ| of each layer, and how the noise changes the actions.

        Raises RuntimeError before the first `learn`.
        """
        network = self.policy().noisy_network
        figures = {f"snr/{name}": value for name, value in snr(network).items()}
        figures |= {f"sigma/{name}": value for name, value in mean_sigma(network).items()}
        actions = self.model.action_space
        if self._seen and isinstance(actions, spaces.Discrete):
            measured = measure(*self.outputs(self._generator))
            figures |= {name: float(getattr(measured, name)) for name in measured.rows}
        if self._seen and isinstance(actions, spaces.Box):
            figures["action_deviation"] = action_deviation(*self.outputs(self._generator))
        return figures
