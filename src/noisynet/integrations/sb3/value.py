"""Noisy policies for Stable-Baselines3's DQN and sb3-contrib's QR-DQN."""

from __future__ import annotations

from typing import Any

from sb3_contrib.qrdqn.policies import QRDQNPolicy, QuantileNetwork
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from torch import Tensor

from ...layers import Draw
from ..host import run_under
from .algorithm import ALGORITHMS
from .noisy_policy import NoisyNetwork, draw_for, made_noisy, uncompiled
from .off_policy import OffPolicyNoise


class _NoisyValues(NoisyNetwork):
    """A noisy network with a value for each action."""

    def forward(self, obs: PyTorchObs) -> Tensor:
        """Return the output for the host's loss: under noise if σ is learned, else by the means."""
        return self._as_learned(super().forward, obs)

    def action_values(self, obs: PyTorchObs, drawn: Draw | None) -> Tensor:
        """Return Q of all actions under a draw, or under the mean weights: (N, actions)."""
        return run_under(drawn, self, super().forward, obs)

    def _predict(self, observation: PyTorchObs, deterministic: bool = True) -> Tensor:
        drawn = None if deterministic else draw_for(self, observation)
        return self.action_values(observation, drawn).argmax(dim=1)


class NoisyQNetwork(_NoisyValues, QNetwork):
    """Network of `NoisyDQNPolicy`."""


class NoisyQuantileNetwork(_NoisyValues, QuantileNetwork):
    """Network of `NoisyQRDQNPolicy`."""

    def action_values(self, obs: PyTorchObs, drawn: Draw | None) -> Tensor:
        """Return the mean over the quantiles: (N, actions)."""
        return super().action_values(obs, drawn).mean(dim=1)


class NoisyValuePolicy(OffPolicyNoise):
    """A greedy policy under noise.

    The noise of both networks is fresh, one draw for the batch at every forward, so that in the
    host's loss the online network has a draw ε and the target network another one, ε′ (§3.1).
    """

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        self._build_optimizer(lr_schedule)

    def _predict(self, observation: PyTorchObs, deterministic: bool = True) -> Tensor:
        return self.greedy(observation, self._drawn_for(observation, deterministic))

    def greedy(self, obs: PyTorchObs, drawn: Draw | None) -> Tensor:
        """Choose argmax Q under a draw of `noisy_network`, or under the mean weights: (N,)."""
        return self.action_values(obs, drawn).argmax(dim=1)

    def action_values(self, obs: PyTorchObs, drawn: Draw | None) -> Tensor:
        """Return Q of all actions under a draw, or under the mean weights: (N, actions)."""
        network: Any = self.noisy_network
        return network.action_values(obs, drawn)

    def _made_noisy(self, network: Any, kind: type[NoisyNetwork]) -> Any:
        return made_noisy(network, kind, self._noise, policy=type(self).__name__)


class NoisyDQNPolicy(NoisyValuePolicy, DQNPolicy):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Exploration by learned noise in `stable_baselines3.DQN`: `DQN(NoisyDQNPolicy, env, …)`.

    `policy_kwargs` accepts the options of the host's policy, and also `noise`, `sigma0` and
    `learned` (as in `noisynet.NoisyLinear`); `noise_in`: "all" (every fully connected layer, the
    default), "head" (those after the features extractor) or "last"; and `redraw`: "update" (after
    every update) or "episode" (in each environment when its episode ends). With `learned=False`,
    noise acts, and the losses see the mean weights. The observations determine the features
    extractor: the host's CNN for images, its combined one for a dict. Raises TypeError in another
    algorithm, and ValueError for unknown options or a network without `nn.Linear`; warns of
    ε-greedy left on. Source: Fortunato et al., §3.1, eq. 14.
    """

    algorithm = ALGORITHMS["NoisyDQNPolicy"]

    @property
    def noisy_network(self) -> QNetwork:
        """The network whose noise explores."""
        return uncompiled(self.q_net)

    def make_q_net(self) -> NoisyQNetwork:
        """Build one network, online or target, with noisy layers."""
        return self._made_noisy(super().make_q_net(), NoisyQNetwork)


class NoisyQRDQNPolicy(NoisyValuePolicy, QRDQNPolicy):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Exploration by learned noise in `sb3_contrib.QRDQN`: `QRDQN(NoisyQRDQNPolicy, env, …)`.

    Options, errors and source are those of `NoisyDQNPolicy`; the greedy action has the
    largest mean over the quantiles.
    """

    algorithm = ALGORITHMS["NoisyQRDQNPolicy"]

    @property
    def noisy_network(self) -> QuantileNetwork:
        """The network whose noise explores."""
        return uncompiled(self.quantile_net)

    def make_quantile_net(self) -> NoisyQuantileNetwork:
        """Build one network, online or target, with noisy layers."""
        return self._made_noisy(super().make_quantile_net(), NoisyQuantileNetwork)
