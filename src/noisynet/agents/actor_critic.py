"""The actor-critic: a policy and its value, learned from rollouts, with parts chosen by config."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..networks import CoreState
from ..runs.config import Config
from . import losses
from .actor_critic_network import build_actor_critic_network
from .exploration import LearnedNoise
from .figures import noise_figures, policy_behaviour
from .optimizers import (
    LossNotFinite,
    build_optimizer,
    leave_gradient,
    set_step_size,
    step_size,
)
from .precision import products_in
from .rollout import Rollout
from .tensors import (
    generator_from_array,
    generator_to_array,
    held_draw_arrays,
    optimizer_arrays,
    restore_held_draw,
    restore_optimizer,
    to_array,
)


@dataclass(frozen=True)
class RolloutLearned:
    """Hold what an update tells: means over the rollout's steps."""

    loss: float
    policy_loss: float
    value_loss: float
    entropy: float


class ActorCritic:
    """Act by a policy, and learn it from the rollout that it played.

    The noise is drawn once for a rollout, one draw for each environment, and held: the update runs
    the network under the very draws that acted, and only then are they redrawn (arXiv 1706.10295,
    §3.1). Every source of randomness is a generator of its own, seeded from the config: `acting`
    for the draws, `actions` for the policy's choices.
    """

    def __init__(self, config: Config, observation_shape: tuple[int, ...], actions: int) -> None:
        """Build network, optimizer and generators; device and precision must be chosen."""
        training = config.training
        if training.device == "auto" or training.precision == "auto":
            raise ValueError("device and precision: got 'auto', expected what was chosen for it")
        self.config = config
        self.actions = actions
        self.device = torch.device(training.device)
        self.network = build_actor_critic_network(config, observation_shape, actions).to(
            self.device
        )
        self.optimizer = build_optimizer(self.network.parameters(), config.learning)
        self._acting = torch.Generator(self.device).manual_seed(training.stream("acting"))
        self._choosing = torch.Generator(self.device).manual_seed(training.stream("actions"))
        environments = config.environment.environments
        self.noise = None
        if config.exploration.has_noise:
            self.noise = LearnedNoise(
                self.network,
                environments,
                self._acting,
                draw_per_environment=config.exploration.draw_per_environment,
            )
        # The LSTM's state now, and where the rollout that is being played began.
        self._core = self._core_before = self.network.initial_state(environments)
        self.updates = 0

    # Acting

    def act(self, observation: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Draw an action for each environment from the policy, (N, …) to (N,).

        `first` (N,) is true where the observation is a game's first. Raises LossNotFinite where
        the policy is NaN.
        """
        probabilities = self.policy(observation, first).softmax(-1)
        if not bool(probabilities.isfinite().all()):
            raise LossNotFinite(f"the policy became NaN after update {self.updates}")
        action = torch.multinomial(probabilities, 1, generator=self._choosing)
        return action.squeeze(-1).cpu().numpy()

    def policy(self, observation: np.ndarray, first: np.ndarray) -> Tensor:
        """Give the policy's logits (N, actions) under the noise in force; an LSTM steps on."""
        with torch.no_grad():
            logits, _, self._core = self._forward(observation[None], first[None], self._core)
        return logits[0]

    def greedy(self, observation: np.ndarray) -> np.ndarray:
        """Choose the most probable action for each environment, (N, …) to (N,).

        An LSTM steps on; `begin` says where games begin.
        """
        same_game = np.zeros(len(observation), bool)
        return self.policy(observation, same_game).argmax(-1).cpu().numpy()

    def begin(self, first: np.ndarray) -> None:
        """Reset an LSTM's state where `first` (N,) says that a game begins."""
        if self._core is not None:
            keep = self._tensor(~first).unsqueeze(-1)
            self._core = (self._core[0] * keep, self._core[1] * keep)

    # Learning

    def evaluate(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Give logits (T + 1, N, actions) and values (T + 1, N) under the noise that acted."""
        logits, value, _ = self._forward(rollout.observation, rollout.first, self._core_before)
        return logits, value

    def loss_terms(self, rollout: Rollout) -> tuple[Tensor, Tensor, Tensor]:
        """Give policy loss, value loss and entropy: means over the steps that were taken."""
        section = self.config.actor_critic
        logits, value = self.evaluate(rollout)
        advantage_t = losses.generalised_advantage(
            self._tensor(rollout.reward_t),
            self._tensor(rollout.discount_t),
            section.gae_lambda * self._tensor(rollout.goes_on_t),
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
        """Leave the loss's gradient, no longer than allowed, in the parameters' `grad`.

        Raises LossNotFinite where the loss or its gradient is NaN or infinite.
        """
        section = self.config.actor_critic
        policy_loss, value_loss, entropy = self.loss_terms(rollout)
        loss = policy_loss + section.value_coefficient * value_loss
        if section.entropy_bonus:
            loss = loss - section.entropy_bonus * entropy
        value = leave_gradient(
            loss,
            self.network,
            self.optimizer,
            max_norm=self.config.learning.max_gradient_norm,
            update=self.updates + 1,
        )
        return RolloutLearned(
            value, float(policy_loss.detach()), float(value_loss.detach()), float(entropy.detach())
        )

    def update(self, rollout: Rollout, step: int) -> RolloutLearned:
        """Take one optimisation step at an agent step, and begin the next rollout.

        Raises LossNotFinite, with the parameters as they were, as `gradient` does.
        """
        learned = self.gradient(rollout)
        set_step_size(self.optimizer, self.learning_rate(step))
        self.optimizer.step()
        self.next_rollout()
        return learned

    def next_rollout(self) -> None:
        """Count an update; redraw the noise; let the LSTM's state stand where it now is."""
        self.updates += 1
        self._core_before = self._core
        if self.noise is not None:
            self.noise.redraw()

    def learning_rate(self, step: int) -> float:
        """Give the step size at an agent step: constant, or falling linearly."""
        learning = self.config.learning
        last = learning.learning_rate_steps or self.config.training.steps
        return step_size(learning, step / last)

    def is_finite(self) -> bool:
        """Tell whether all parameters are finite."""
        with torch.no_grad():
            return all(bool(one.isfinite().all()) for one in self.network.parameters())

    def _forward(
        self, observation: np.ndarray, first: np.ndarray, core: CoreState | None
    ) -> tuple[Tensor, Tensor, CoreState | None]:
        with self._precision():
            return self.network(self._tensor(observation), self._tensor(first), core)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _precision(self) -> AbstractContextManager[object]:
        return products_in(self.config.training.precision, self.device)

    # What is seen of it

    def figures(
        self, observation: np.ndarray | None = None, first: np.ndarray | None = None
    ) -> dict[str, float]:
        """Give SNR and mean |σ| per noisy layer, by the names that metrics have.

        With the observations (N, …) that are to be acted on next, and `first` (N,), also what the
        noise does to the most probable actions there. Its draws are seeded by the number of
        updates: nothing else changes by them.
        """
        figures = noise_figures(self.network)
        if self.noise is not None and observation is not None and first is not None:
            seed = self.config.training.stream(f"behaviour {self.updates}")
            generator = torch.Generator(self.device).manual_seed(seed)
            with self._precision():
                figures |= policy_behaviour(
                    self.network,
                    self._tensor(observation),
                    self._tensor(first),
                    self._core,
                    generator,
                )
        return figures

    # Saving

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Give everything that goes on changing, between two rollouts."""
        arrays = {
            f"network.{name}": to_array(tensor)
            for name, tensor in self.network.state_dict().items()
        }
        arrays.update(optimizer_arrays(self.optimizer, "optimizer"))
        arrays["generator.acting"] = generator_to_array(self._acting)
        arrays["generator.actions"] = generator_to_array(self._choosing)
        if self.noise is not None:
            arrays.update(held_draw_arrays(self.network))
        for name, state in zip(("hidden", "cell"), self._core or (), strict=False):
            arrays[f"core.{name}"] = to_array(state)
        return arrays, {"updates": self.updates}

    def restore(self, arrays: Mapping[str, np.ndarray], plain: Mapping[str, Any]) -> None:
        """Take over what `state` gave; raises KeyError or RuntimeError where it does not fit."""
        self.load_networks(arrays)
        restore_optimizer(self.optimizer, arrays, "optimizer")
        generator_from_array(self._acting, arrays["generator.acting"])
        generator_from_array(self._choosing, arrays["generator.actions"])
        if self.noise is not None:
            restore_held_draw(self.network, arrays)
        if self._core is not None:
            hidden, cell = (self._tensor(arrays[f"core.{name}"]) for name in ("hidden", "cell"))
            self._core = self._core_before = (hidden, cell)
        self.updates = int(plain["updates"])

    def load_networks(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over the network alone, as evaluation does."""
        self.network.load_state_dict(
            {
                name.removeprefix("network."): torch.from_numpy(array)
                for name, array in arrays.items()
                if name.startswith("network.")
            }
        )
