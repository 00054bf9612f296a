"""BTR's network, as far as the host's losses allow: noisy layers on IMPALA's torso."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from ...networks import ImpalaSettings, ImpalaTorso
from .value import NoisyDQNPolicy, NoisyQRDQNPolicy, NoisyValuePolicy

_HIDDEN = (512,)


class ImpalaExtractor(BaseFeaturesExtractor):
    """IMPALA's CNN as a features extractor: images (N, channels, height, width) to (N, features).

    The defaults are BTR's (arXiv 2411.03820): twice the width, adaptive max pooling to 6 by 6,
    spectral norm on the residual convolutions. It works in any policy of the host:
    `policy_kwargs={"features_extractor_class": ImpalaExtractor}`. Raises ValueError for images
    smaller than 41 by 41 pixels, or than another `pooling` needs. A target network that is copied
    parameter by parameter needs `torso.always_estimates = True`, which our BTR policies set.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        *,
        width: float = 2.0,
        pooling: int = 6,
        spectral_norm: bool = True,
    ) -> None:
        settings = ImpalaSettings(width=width, pooling=pooling, spectral_norm=spectral_norm)
        torso = ImpalaTorso(observation_space.shape or (), settings)
        super().__init__(observation_space, torso.features)
        self.torso = torso

    def forward(self, observations: Tensor) -> Tensor:
        """Return features (N, features) of images, whose pixels the host has scaled to 0…1."""
        return self.torso(observations)


class _BTRPolicy(NoisyValuePolicy):
    """The common part of the policies on BTR's torso."""

    def __init__(
        self,
        *arguments: Any,
        net_arch: Sequence[int] = _HIDDEN,
        features_extractor_class: type[BaseFeaturesExtractor] = ImpalaExtractor,
        **options: Any,
    ) -> None:
        super().__init__(
            *arguments,
            net_arch=list(net_arch),
            features_extractor_class=features_extractor_class,
            **options,
        )

    @property
    def target_network(self) -> BasePolicy:
        """The target network."""
        raise NotImplementedError

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        extractor: Any = self.target_network.features_extractor
        if isinstance(extractor, ImpalaExtractor):
            # The host copies only parameters; the estimates of the target must follow them.
            extractor.torso.always_estimates = True


class BTRDQNPolicy(_BTRPolicy, NoisyDQNPolicy):
    """`NoisyDQNPolicy` on BTR's torso, with a noisy hidden layer of 512: `DQN(BTRDQNPolicy, …)`.

    Options are those of `NoisyDQNPolicy`; `features_extractor_kwargs` go to `ImpalaExtractor`. The
    host computes targets and losses, so there are no quantiles at random fractions, Munchausen
    targets, dueling streams or priorities. Source: arXiv 2411.03820.
    """

    @property
    def target_network(self) -> BasePolicy:
        """The target network."""
        return self.q_net_target


class BTRQRDQNPolicy(_BTRPolicy, NoisyQRDQNPolicy):
    """`NoisyQRDQNPolicy` on BTR's torso: `QRDQN(BTRQRDQNPolicy, …)`.

    It is like `BTRDQNPolicy`, with quantiles at fixed fractions, the closest the host has to BTR's.
    """

    @property
    def target_network(self) -> BasePolicy:
        """The target network."""
        return self.quantile_net_target
