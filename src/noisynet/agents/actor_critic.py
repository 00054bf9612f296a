"""The actor-critic: a policy and its value, learned from rollouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..layers.outputs import Outputs
from ..networks import ActorCriticNetwork, CoreState
from ..runs.seeds import stream
from . import losses
from .base import BaseAgent
from .noise_control import DRAWS, Control, Observations
from .noise_metrics import policy_behaviour, policy_outputs, unit_figures
from .optimizers import LossNotFinite, autocast_for, backward_and_clip, set_step_size
from .revival import ROWS, Revival
from .rollout import Rollout
from .saved_arrays import to_array


@dataclass(frozen=True)
class RolloutLearned:
    """The result of an update: means over the rollout's steps."""

    loss: float
    policy_loss: float
    value_loss: float
    entropy: float


class ActorCritic(BaseAgent[ActorCriticNetwork]):
    """An agent that acts by a policy, and learns the policy from the rollouts that it plays.

    The noise is drawn once per rollout, one draw for each environment, and held: the update runs
    the network under the same draws that acted, and only then are they redrawn (arXiv 1706.10295,
    §3.1). Each source of randomness has its own generator, seeded from `seed`: `acting` for the
    draws, `actions` for the policy's choices.

    Args:
        network: policy and value network, already on its device.
        optimizer: optimizer of the network's parameters.
        actions: number of actions.
        environments: number of environments that act in parallel, each with its own draw.
        gae_lambda: λ of the advantages (arXiv 1506.02438); 1: n-step returns.
        value_coefficient: weight of the value loss relative to the policy loss.
        entropy_bonus: weight of the policy's entropy.
        max_gradient_norm: norm to which larger gradients are scaled down; None: no clipping.
        draw_per_environment: False: one acting draw for all environments.
        control: schedule or target for the noise's scale, which moves between rollouts; None: the
            scale is constant.
        precision: "float32", or "bfloat16" for matrix products.
        revival: cures that keep the network able to learn; None: no cures.
        seed: seed of all random numbers.
    """

    def __init__(
        self,
        network: ActorCriticNetwork,
        optimizer: torch.optim.Optimizer,
        *,
        actions: int,
        environments: int,
        gae_lambda: float = 1.0,
        value_coefficient: float = 0.5,
        entropy_bonus: float = 0.0,
        max_gradient_norm: float | None = 0.5,
        draw_per_environment: bool = True,
        control: Control | None = None,
        precision: Literal["float32", "bfloat16"] = "float32",
        revival: Revival | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            network,
            optimizer,
            actions=actions,
            environments=environments,
            max_gradient_norm=max_gradient_norm,
            draw_per_environment=draw_per_environment,
            control=control,
            precision=precision,
            revival=revival,
            seed=seed,
        )
        self._gae_lambda = gae_lambda
        self._value_coefficient = value_coefficient
        self._entropy_bonus = entropy_bonus
        self._choosing = torch.Generator(self.device).manual_seed(stream(seed, "actions"))
        self._generators["actions"] = self._choosing
        # The LSTM's state now, and at the start of the rollout that is being played.
        self._core = self._core_before = network.initial_state(environments)
        self._step = 0
        """The agent step passed to the last `act`."""

    # Acting

    def act(self, observation: np.ndarray, step: int, first: np.ndarray) -> np.ndarray:
        """Draw an action for each environment from the policy, (N, …) to (N,).

        `first` (N,) is true where the observation is a game's first. Raises LossNotFinite if the
        policy is NaN.
        """
        self._step = step
        if self.control is not None:
            self.control.see(observation, first, *map(to_array, self._core or ()))
        probabilities = self.policy(observation, first).softmax(-1)
        if not bool(probabilities.isfinite().all()):
            raise LossNotFinite(f"the policy became NaN after update {self.updates}")
        action = torch.multinomial(probabilities, 1, generator=self._choosing)
        return action.squeeze(-1).cpu().numpy()

    def policy(self, observation: np.ndarray, first: np.ndarray) -> Tensor:
        """Return the policy's logits (N, actions) under the current noise; advance an LSTM."""
        with torch.no_grad():
            logits, _, self._core = self._forward(observation[None], first[None], self._core)
        return logits[0]

    def greedy(self, observation: np.ndarray) -> np.ndarray:
        """Choose the most probable action for each environment, (N, …) to (N,).

        Advances an LSTM by one step; call `begin` first where games begin.
        """
        same_game = np.zeros(len(observation), bool)
        return self.policy(observation, same_game).argmax(-1).cpu().numpy()

    def begin(self, first: np.ndarray) -> None:
        """Reset an LSTM's state where `first` (N,) is true: a game begins there."""
        if self._core is not None:
            keep = self._tensor(~first).unsqueeze(-1)
            self._core = (self._core[0] * keep, self._core[1] * keep)

    # Learning

    def evaluate(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Return logits (T + 1, N, actions) and values (T + 1, N) under the noise that acted."""
        logits, value, _ = self._forward(rollout.observation, rollout.first, self._core_before)
        return logits, value

    def loss_terms(self, rollout: Rollout) -> tuple[Tensor, Tensor, Tensor]:
        """Return policy loss, value loss and entropy, as means over the steps taken."""
        logits, value = self.evaluate(rollout)
        advantage_t = losses.generalised_advantage(
            self._tensor(rollout.reward_t),
            self._tensor(rollout.discount_t),
            self._gae_lambda * self._tensor(rollout.goes_on_t),
            value.detach(),
        )
        logits_t, value_t = logits[:-1], value[:-1]
        taken_t = self._tensor(rollout.taken_t)
        steps = taken_t.sum().clamp_min(1)

        def mean(of_steps: Tensor) -> Tensor:
            return (of_steps * taken_t).sum() / steps

        return (
            mean(losses.policy_gradient(logits_t, self._tensor(rollout.action_t), advantage_t)),
            mean(losses.value_error(value_t, advantage_t + value_t.detach())),
            mean(losses.entropy(logits_t)),
        )

    def gradient(self, rollout: Rollout) -> RolloutLearned:
        """Compute the gradient of the loss, clip it, and leave it in the parameters' `grad`.

        Raises LossNotFinite if the loss or its gradient is NaN or infinite.
        """
        policy_loss, value_loss, entropy = self.loss_terms(rollout)
        loss = policy_loss + self._value_coefficient * value_loss
        if self._entropy_bonus:
            loss = loss - self._entropy_bonus * entropy
        value = backward_and_clip(
            loss,
            self.optimizer,
            max_norm=self.max_gradient_norm,
            update=self.updates + 1,
        )
        return RolloutLearned(
            value, float(policy_loss.detach()), float(value_loss.detach()), float(entropy.detach())
        )

    def update(self, rollout: Rollout, step_size: float | None = None) -> RolloutLearned:
        """Take one optimisation step, and begin the next rollout.

        `step_size` replaces the optimizer's. Raises LossNotFinite as `gradient` does; the
        parameters are then unchanged.
        """
        learned = self.gradient(rollout)
        if step_size is not None:
            set_step_size(self.optimizer, step_size)
        self.optimizer.step()
        self._revive_if_due(rollout)
        self.next_rollout()
        return learned

    def _revive_if_due(self, rollout: Rollout) -> None:
        """Apply the cures that are due after this update, which is not counted yet.

        Dormant units are found on the rollout's first steps, as many as give 256 observations.
        """
        updates = self.updates + 1
        if self.revival is None or not self.revival.is_due(updates):
            return
        steps = max(ROWS // rollout.first.shape[1], 1)
        shown = (
            self._tensor(rollout.observation[:-1][:steps]),
            self._tensor(rollout.first[:-1][:steps]),
            self._core_before,
        )
        self._apply_cures(self.revival, shown, updates)

    def next_rollout(self) -> None:
        """Count an update, redraw the noise, and start a rollout at the LSTM's current state.

        The scale moves only here, so that a rollout is learned under the noise that acted.
        """
        self.updates += 1
        self._core_before = self._core
        if self.control is not None:
            self.control.move(self._step)
        if self.noise is not None:
            self.noise.redraw()

    def _outputs(self, seen: Observations, generator: torch.Generator) -> Outputs:
        observation, first, *state = (self._tensor(one) for one in seen)
        core = (state[0], state[1]) if state else None
        with autocast_for(self.precision, self.device):
            return policy_outputs(self.network, observation, first, core, generator, draws=DRAWS)

    def _forward(
        self, observation: np.ndarray, first: np.ndarray, core: CoreState | None
    ) -> tuple[Tensor, Tensor, CoreState | None]:
        with autocast_for(self.precision, self.device):
            return self.network(self._tensor(observation), self._tensor(first), core)

    # Metrics

    def behaviour(self, observation: np.ndarray, first: np.ndarray) -> dict[str, float]:
        """Return figures of the noise's effect on the most probable actions, and of the units.

        The observations (N, …) are those acted on next; `first` (N,) is true where a game begins.
        The draws are seeded by the number of updates, so no other random numbers change.
        """
        generator = self._generator_for_figures()
        shown, begins = self._tensor(observation), self._tensor(first)
        noise: dict[str, float] = {}
        with autocast_for(self.precision, self.device):
            if self.noise is not None:
                noise = policy_behaviour(self.network, shown, begins, self._core, generator)
            # The network takes sequences; this one has a single step.
            arguments = (shown.unsqueeze(0), begins.unsqueeze(0), self._core)
            return noise | unit_figures(self.network, arguments, generator)

    # Saving

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return the agent's state between two rollouts, as arrays and as plain JSON values."""
        arrays, plain = super().state()
        for name, state in zip(("hidden", "cell"), self._core or (), strict=False):
            arrays[f"core.{name}"] = to_array(state)
        return arrays, plain

    def restore(self, arrays: Mapping[str, np.ndarray], plain: Mapping[str, Any]) -> None:
        """Restore what `state` returned. Raises KeyError or RuntimeError if it does not fit."""
        super().restore(arrays, plain)
        if self._core is not None:
            hidden, cell = (self._tensor(arrays[f"core.{name}"]) for name in ("hidden", "cell"))
            self._core = self._core_before = (hidden, cell)
