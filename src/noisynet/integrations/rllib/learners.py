"""RLlib's learners with less work per parameter, since σ doubles the number of parameters."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.utils.typing import ParamDict


class _QuickLearner(TorchLearner):
    """A learner with the host's updates, up to rounding, by fused Adam and a quick NaN check."""

    def build(self) -> None:
        """Build the learner, as the host does."""
        super().build()
        self._unchecked = self.config.copy(copy_frozen=False)
        self._unchecked.torch_skip_nan_gradients = True

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Register the optimizer, as the host does."""
        parameters: list[Any] = list(self.get_parameters(self.module[module_id]))
        self.register_optimizer(
            module_id=module_id,
            optimizer=torch.optim.Adam(parameters, fused=True),
            params=parameters,
            lr_or_lr_schedule=config.lr,
        )

    def apply_gradients(self, gradients_dict: ParamDict) -> None:
        """Apply gradients, with the host's two searches of each only if one of them is not finite.

        The sum of a gradient is finite only if all its values are.
        """
        # A parameter that the batch did not reach has no gradient.
        given = [one for one in gradients_dict.values() if isinstance(one, torch.Tensor)]
        sums = [one.sum() for one in given]
        checked = self.config
        if sums and torch.stack(sums).isfinite().all():
            self.config = self._unchecked
        try:
            super().apply_gradients(gradients_dict)
        finally:
            self.config = checked


class NoisyDQNTorchLearner(_QuickLearner, DQNTorchLearner):
    """Learner of DQN with the fused Adam."""


class NoisyPPOTorchLearner(_QuickLearner, PPOTorchLearner):
    """Learner of PPO with the fused Adam."""


LEARNERS: dict[type[Any], type[Any]] = {
    DQNTorchLearner: NoisyDQNTorchLearner,
    PPOTorchLearner: NoisyPPOTorchLearner,
}
"""The host's default learners, and what replaces each."""
