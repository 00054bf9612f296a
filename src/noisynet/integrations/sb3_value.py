"""Noisy policies for DQN of Stable-Baselines3 and QR-DQN of sb3-contrib."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from sb3_contrib.qrdqn.policies import QRDQNPolicy, QuantileNetwork
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from torch import Tensor

from ..layers import Draw, draw, mean_weights, using
from .sb3_algorithm import ALGORITHMS, check_algorithm, samples_actions
from .sb3_network import (
    NoiseOptions,
    add_noise,
    batch_size,
    build_optimizer,
    extractor_for,
)


class _NoisyValuePolicy(BasePolicy):
    """Act greedily under noise: what stands before the host's own policy.

    The noise of both networks is fresh, one draw for the batch at every forward, so that in the
    host's loss the online network has a draw ε and the target network another one, ε′ (§3.1).
    Actions have draws of their own, one for each environment, and new ones after every step of the
    optimizer. Outside the host's collection `predict` draws anew at every call.
    """

    algorithm: ClassVar[type[BaseAlgorithm]]

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        *,
        noise: str = "factorised",
        sigma0: float | None = None,
        noise_in: str = "all",
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        normalize_images: bool = True,
        **options: Any,
    ) -> None:
        check_algorithm(self, self.algorithm)
        # The host's constructor builds the networks, and these are read there.
        self._noise = NoiseOptions(noise=noise, sigma0=sigma0, noise_in=noise_in)
        self._held: dict[int, Draw] = {}
        self._collects = False
        if features_extractor_class is None:
            features_extractor_class = extractor_for(observation_space, normalize_images)
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            features_extractor_class=features_extractor_class,
            normalize_images=normalize_images,
            **options,
        )

    @property
    def noisy_network(self) -> BasePolicy:
        """Give the network whose noise acts."""
        raise NotImplementedError

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        self.optimizer = build_optimizer(
            self.noisy_network, self.optimizer_class, lr_schedule(1), self.optimizer_kwargs
        )
        self._redraw_after_updates()

    def _redraw_after_updates(self) -> None:
        self.optimizer.register_step_post_hook(lambda *_: self._held.clear())

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # A copied optimizer has lost its hooks.
        self._redraw_after_updates()

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Choose the greedy action: by the mean weights if `deterministic`, else under noise."""
        self._collects = samples_actions()
        try:
            return super().predict(observation, state, episode_start, deterministic)
        finally:
            self._collects = False

    def _predict(self, observation: PyTorchObs, deterministic: bool = True) -> Tensor:
        drawn = None if deterministic else self._acting_draw(batch_size(observation))
        return self.greedy(observation, drawn)

    def greedy(self, obs: PyTorchObs, drawn: Draw | None) -> Tensor:
        """Choose argmax Q under a draw of `noisy_network`, or under the mean weights: (N,)."""
        return self.action_values(obs, drawn).argmax(dim=1)

    def action_values(self, obs: PyTorchObs, drawn: Draw | None) -> Tensor:
        """Give Q of all actions under a draw, or under the mean weights: (N, actions)."""
        network = self.noisy_network
        with mean_weights(network) if drawn is None else using(network, drawn):
            return self._q_values(network(obs))

    def _q_values(self, output: Tensor) -> Tensor:
        """Make Q (N, actions) of what the network gives."""
        return output

    def _acting_draw(self, rows: int) -> Draw:
        if not self._collects:
            return draw(self.noisy_network, rows=rows)
        if rows not in self._held:
            self._held[rows] = draw(self.noisy_network, rows=rows)
        return self._held[rows]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), **self._noise.as_arguments()}


class NoisyDQNPolicy(_NoisyValuePolicy, DQNPolicy):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Explore by learned noise in `stable_baselines3.DQN`: `DQN(NoisyDQNPolicy, env, …)`.

    `policy_kwargs` takes what the host's policy takes, and `noise`, `sigma0` (as
    `noisynet.NoisyLinear`) and `noise_in`: "all" (every fully connected layer), "head" (those after
    the features extractor) or "last". The features extractor follows from the observations: the
    host's CNN for images, its combined one for a dict. Raises TypeError in another algorithm, and
    ValueError for unknown options or a network without `nn.Linear`; warns of ε-greedy left on.
    Source: Fortunato et al., §3.1, eq. 14.
    """

    algorithm = ALGORITHMS["NoisyDQNPolicy"]

    @property
    def noisy_network(self) -> QNetwork:
        """Give the network whose noise acts."""
        return self.q_net

    def make_q_net(self) -> QNetwork:
        """Build one network, online or target, with noisy layers."""
        return add_noise(super().make_q_net(), self._noise, policy=type(self).__name__)


class NoisyQRDQNPolicy(_NoisyValuePolicy, QRDQNPolicy):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Explore by learned noise in `sb3_contrib.QRDQN`: `QRDQN(NoisyQRDQNPolicy, env, …)`.

    Options, errors and source are those of `NoisyDQNPolicy`; what is greedy is the mean over the
    quantiles.
    """

    algorithm = ALGORITHMS["NoisyQRDQNPolicy"]

    @property
    def noisy_network(self) -> QuantileNetwork:
        """Give the network whose noise acts."""
        return self.quantile_net

    def _q_values(self, output: Tensor) -> Tensor:
        return output.mean(dim=1)

    def make_quantile_net(self) -> QuantileNetwork:
        """Build one network, online or target, with noisy layers."""
        return add_noise(super().make_quantile_net(), self._noise, policy=type(self).__name__)
