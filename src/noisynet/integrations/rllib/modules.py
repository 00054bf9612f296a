"""Noisy RLModules for RLlib's DQN, SAC and PPO."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import torch
from gymnasium import spaces
from ray.rllib.algorithms.dqn.default_dqn_rl_module import (
    ATOMS,
    QF_LOGITS,
    QF_NEXT_PREDS,
    QF_PREDS,
    QF_PROBS,
    QF_TARGET_NEXT_PREDS,
    QF_TARGET_NEXT_PROBS,
)
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.core.columns import Columns
from torch import Tensor

from ...layers import sigma_parameters
from ..host import Forward, size_of
from .noisy_module import NoisyRLModule
from .seeds import DrawContext, LearningNoise

NOISE_SEED = "noise_seed"
"""The column of PPO's samples with the seed of the draw under which each action was chosen."""


class _OffPolicyNoise(NoisyRLModule):
    """The base of the modules that hold the draws for acting once learned weights have arrived."""

    def setup(self) -> None:
        """Build the host's networks, and make their layers noisy."""
        super().setup()
        self._learned = False

    def set_state(self, state: Any) -> None:
        """Load weights; if they have changed, draw new noise for acting."""
        # All networks start with the same σ, so another one has been learned.
        sigma = min(sigma_parameters(self), key=lambda one: one.numel())
        former = sigma.detach().clone()
        super().set_state(state)
        if not torch.equal(former, sigma):
            self._acting.redraw()
            self._learned = True

    def _acting_noise(self, batch: dict[str, Any], probe: Forward) -> DrawContext:
        # Under one draw, the whole warm-up might take the same action.
        if not self._learned:
            self._acting.redraw()
        self._check_rows(probe, batch)
        self._keep_seen(batch)
        return self._acting.of_rows(self, size_of(batch[Columns.OBS]))[1]


class NoisyDQNRLModule(_OffPolicyNoise, DefaultDQNTorchRLModule):
    """Exploration by learned noise in RLlib's DQN, with whichever of its extensions are on.

    `model_config` takes `noise`, `sigma0` (as `noisynet.NoisyLinear` has them) and `noise_in`:
    "all" (every fully connected layer, the default), "head" (those after the encoder) or "last"
    (the outputs).

    Exploration uses a draw for each environment, held until new weights arrive; before the first
    update, it is redrawn at every step. Inference uses the mean weights. In training, every forward
    draws for itself: the online network has ε, the target network ε′, and the choice of the next
    action ε″. Raises ValueError for unknown options, for a module that is recurrent or has no
    `nn.Linear`, and for noise in layers whose rows are not those of the batch; warns of ε-greedy
    left on. A module for inference alone raises at its first forward, since the host loses an error
    from building an actor. Source: Fortunato et al., §3.1, eq. 15 and 16.
    """

    def setup(self) -> None:
        """Build the host's networks, and make their layers noisy."""
        super().setup()
        # Warn once for each agent: its actors are built for inference only.
        epsilon = self.model_config["epsilon"]
        if not self.inference_only and _ever_positive(epsilon):
            warnings.warn(
                f"{type(self).__name__}: ε-greedy explores beside the noise, ε = {epsilon}; turn "
                "it off with .training(epsilon=0.0)",
                stacklevel=2,
            )

    def values(self, batch: dict[str, Any]) -> Tensor:
        """Return Q (B, actions) under the noise in force."""
        q: Any = self.compute_q_values(batch)[QF_PREDS]
        return q

    def _forward_exploration(self, batch: dict[str, Any], t: int) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride] - as the host's
        under_noise = self._acting_noise(batch, self.compute_q_values)
        with torch.no_grad(), under_noise():
            return super()._forward_exploration(batch, t)

    def _forward_train(self, batch: dict[str, Any]) -> dict[str, Any]:
        following = {Columns.OBS: batch[Columns.NEXT_OBS]}
        online = self.compute_q_values({Columns.OBS: batch[Columns.OBS]})
        with torch.no_grad():
            target = self.forward_target(following)
        output = {QF_PREDS: online[QF_PREDS], QF_TARGET_NEXT_PREDS: target[QF_PREDS]}
        if self.uses_double_q:
            # The host asks for both observations in one forward, which would share one draw.
            with torch.no_grad():
                output[QF_NEXT_PREDS] = self.compute_q_values(following)[QF_PREDS]
        if self.num_atoms > 1:
            output[ATOMS] = target[ATOMS]
            output[QF_LOGITS] = online[QF_LOGITS]
            output[QF_PROBS] = online[QF_PROBS]
            output[QF_TARGET_NEXT_PROBS] = target[QF_PROBS]
        return output


class NoisySACRLModule(_OffPolicyNoise, DefaultSACTorchRLModule):
    """Exploration by learned noise in the actor of RLlib's SAC.

    The critics have no noise. Options, errors, exploration and inference are as in
    `NoisyDQNRLModule`, and actions are sampled from the policy, as in the host. In training, the
    actor draws for the observations, and again for the next observations.
    Source: Fortunato et al., §3.1.
    """

    noisy_parts = ("pi_encoder.", "pi.")

    def values(self, batch: dict[str, Any]) -> Tensor:
        """Return the mean of continuous actions, or logits of discrete ones, (B, actions)."""
        return _chosen(self, DefaultSACTorchRLModule._forward_inference(self, batch))

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:  # noqa: ARG002 - as the host calls it
        # The host's own method calls its forward for inference, which is by the mean weights here.
        act = partial(DefaultSACTorchRLModule._forward_inference, self)
        under_noise = self._acting_noise(batch, act)
        with torch.no_grad(), under_noise():
            return act(batch)


class NoisyPPORLModule(NoisyRLModule, DefaultPPOTorchRLModule):
    """Exploration by learned noise in RLlib's PPO.

    Options and errors are those of `NoisyDQNRLModule`, but by default only the outputs are noisy
    (`noise_in="last"`). Exploration holds one draw for each environment over the rollout, until new
    weights arrive, and stores its seed with each action. From the seed, the learner computes the
    same noise for the policy, the value function and the advantages, so that the first ratio is 1.
    Inference uses the mean weights. Source: Fortunato et al., §3.2.
    """

    noise_in = "last"

    def setup(self) -> None:
        """Build the host's networks, and make their layers noisy."""
        super().setup()
        self._learning = LearningNoise()

    def set_state(self, state: Any) -> None:
        """Load weights, and draw new noise for the next rollout."""
        super().set_state(state)
        self._acting.redraw()

    def values(self, batch: dict[str, Any]) -> Tensor:
        """Return logits of discrete actions, or the mean of continuous ones, (B, actions)."""
        return _chosen(self, super()._forward(batch))

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        self._check_rows(self._whole, batch)
        self._keep_seen(batch)
        seeds, under_noise = self._acting.of_rows(self, size_of(batch[Columns.OBS]))
        with under_noise():
            output = super()._forward_exploration(batch, **kwargs)
        output[NOISE_SEED] = seeds
        return output

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        with self._rollout_noise(batch)():
            return super()._forward_train(batch, **kwargs)

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        """Estimate values (B,) under the draws that the batch was sampled under."""
        with self._rollout_noise(batch)():
            values: Any = super().compute_values(batch, embeddings)
        return values

    def _rollout_noise(self, batch: dict[str, Any]) -> DrawContext:
        seeds = batch.get(NOISE_SEED)
        if seeds is None:
            raise ValueError(
                f"{type(self).__name__}: got a batch without {NOISE_SEED!r}, expected one that was "
                "sampled by this module with explore=True"
            )
        self._check_rows(self._whole, batch)
        return self._learning.under(self, seeds)

    def _whole(self, batch: dict[str, Any]) -> None:
        super()._forward(batch)
        if not self.inference_only:
            super().compute_values(batch)


def _ever_positive(epsilon: Any) -> bool:
    """Return whether ε, a number or a schedule [(step, value), …], is above 0 at any time."""
    schedule = epsilon if isinstance(epsilon, list | tuple) else [(0, epsilon)]
    return any(value != 0.0 for _, value in schedule)


def _chosen(module: Any, output: dict[str, Any]) -> Tensor:
    """Return logits of discrete actions, or the mean of continuous ones, (B, actions)."""
    inputs = output[Columns.ACTION_DIST_INPUTS]
    if isinstance(module.action_space, spaces.Discrete):
        return inputs
    return module.get_inference_action_dist_cls().from_logits(inputs).to_deterministic().sample()
