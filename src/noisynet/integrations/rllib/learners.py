"""RLlib's learners, with less work for each parameter, since σ doubles the parameters."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.utils.typing import ParamDict


class _QuickLearner(TorchLearner):
    """The host's updates, equal but for rounding: the fused Adam, and a quick look for NaN."""

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
        """Apply gradients, with the host's two searches of each one only where any is not finite.

        A sum is finite only where all that it adds up is.
        """
        # A parameter that a batch did not reach has none.
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
"""What stands in for the host's default learners."""
