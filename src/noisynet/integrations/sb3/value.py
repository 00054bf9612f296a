"""Noisy policies for DQN of Stable-Baselines3 and QR-DQN of sb3-contrib."""

from __future__ import annotations

import functools
from dataclasses import asdict
from typing import Any

import numpy as np
from gymnasium import spaces
from sb3_contrib.qrdqn.policies import QRDQNPolicy, QuantileNetwork
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from torch import Tensor

from ...layers import Draw, NoiseName, draw
from ..host import run_under
from .algorithm import ALGORITHMS, samples_actions
from .noisy_policy import NoiseOptions, NoisyPolicy, add_noise, batch_size


class _NoisyNetwork(BasePolicy):
    """Network of the host with noise, which acts by itself, and is saved, as its policy is."""

    def __init__(
        self, *arguments: Any, noise: NoiseName, sigma0: float | None, noise_in: str, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self._noise = NoiseOptions(noise=noise, sigma0=sigma0, noise_in=noise_in)
        add_noise(self, self._noise, policy=type(self).__name__)

    def action_values(self, obs: PyTorchObs, drawn: Draw | None) -> Tensor:
        """Return Q of all actions under a draw, or under the mean weights: (N, actions)."""
        return run_under(drawn, self, self, obs)

    def _predict(self, observation: PyTorchObs, deterministic: bool = True) -> Tensor:
        drawn = None if deterministic else draw(self, rows=batch_size(observation))
        return self.action_values(observation, drawn).argmax(dim=1)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), **asdict(self._noise)}


class NoisyQNetwork(_NoisyNetwork, QNetwork):
    """Network of `NoisyDQNPolicy`."""


class NoisyQuantileNetwork(_NoisyNetwork, QuantileNetwork):
    """Network of `NoisyQRDQNPolicy`."""

    def action_values(self, obs: PyTorchObs, drawn: Draw | None) -> Tensor:
        """Return the mean over the quantiles: (N, actions)."""
        return super().action_values(obs, drawn).mean(dim=1)


@functools.cache
def _noisy_kind(noisy: type[_NoisyNetwork], host: type[BasePolicy]) -> type[BasePolicy]:
    """Return the noisy class of a network's own, which a user may have subclassed."""
    return noisy if noisy.__bases__[1] is host else type(noisy.__name__, (noisy, host), {})


class _NoisyValuePolicy(NoisyPolicy):
    """Greedy policy under noise.

    The noise of both networks is fresh, one draw for the batch at every forward, so that in the
    host's loss the online network has a draw ε and the target network another one, ε′ (§3.1).
    Actions have draws of their own, one for each environment, and new ones after every step of the
    optimizer. Outside the host's collection `predict` draws anew at every call.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        **options: Any,
    ) -> None:
        self._held: dict[int, Draw] = {}
        self._collects = False
        super().__init__(observation_space, action_space, lr_schedule, **options)

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        self._build_optimizer(lr_schedule)

    def _after_update(self) -> None:
        self._held.clear()

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
        """Return Q of all actions under a draw, or under the mean weights: (N, actions)."""
        network: Any = self.noisy_network
        return network.action_values(obs, drawn)

    def _made_noisy(self, network: Any, kind: type[_NoisyNetwork]) -> Any:
        add_noise(network, self._noise, policy=type(self).__name__)
        network._noise = self._noise
        network.__class__ = _noisy_kind(kind, type(network))
        return network

    def _acting_draw(self, rows: int) -> Draw:
        if not self._collects:
            return draw(self.noisy_network, rows=rows)
        if rows not in self._held:
            self._held[rows] = draw(self.noisy_network, rows=rows)
        return self._held[rows]


class NoisyDQNPolicy(_NoisyValuePolicy, DQNPolicy):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Exploration by learned noise in `stable_baselines3.DQN`: `DQN(NoisyDQNPolicy, env, …)`.

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
        """The network whose noise acts."""
        return self.q_net

    def make_q_net(self) -> NoisyQNetwork:
        """Build one network, online or target, with noisy layers."""
        return self._made_noisy(super().make_q_net(), NoisyQNetwork)


class NoisyQRDQNPolicy(_NoisyValuePolicy, QRDQNPolicy):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Exploration by learned noise in `sb3_contrib.QRDQN`: `QRDQN(NoisyQRDQNPolicy, env, …)`.

    Options, errors and source are those of `NoisyDQNPolicy`; the greedy action is that of the mean
    over the quantiles.
    """

    algorithm = ALGORITHMS["NoisyQRDQNPolicy"]

    @property
    def noisy_network(self) -> QuantileNetwork:
        """The network whose noise acts."""
        return self.quantile_net

    def make_quantile_net(self) -> NoisyQuantileNetwork:
        """Build one network, online or target, with noisy layers."""
        return self._made_noisy(super().make_quantile_net(), NoisyQuantileNetwork)
