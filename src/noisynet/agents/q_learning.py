"""The value-based agent: Q-learning whose parts are chosen by config."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..layers import Draw, draw, mean_weights, using
from ..networks import DistributionalHead, QNetwork
from ..runs.config import Config
from . import losses
from .exploration import LearnedNoise, LinearEpsilon, epsilon_greedy
from .figures import noise_figures, q_behaviour
from .optimizers import build_optimizer, leave_gradient, set_step_size, step_size
from .precision import products_in
from .q_network import build_q_network
from .schedule import UpdateSchedule
from .tensor_transitions import TensorTransitions
from .tensors import (
    generator_from_array,
    generator_to_array,
    held_draw_arrays,
    optimizer_arrays,
    restore_held_draw,
    restore_optimizer,
    to_array,
)
from .transitions import Transitions

Draws = tuple[Draw | None, Draw | None, Draw | None]
"""ε for the online net, ε′ for the target net, ε″ for the choice of the next action."""


@dataclass(frozen=True)
class Learned:
    """Hold what an update tells: the batch's mean loss, and each transition's error (B,), ≥ 0.

    The error is |δ|, or the loss itself where values are distributions: what prioritised replay
    samples by (arXiv 1511.05952, §3.3; arXiv 1710.02298, §3).
    """

    loss: float
    errors: np.ndarray


class QLearning:
    """Act, and learn Q by temporal differences.

    Online and target network, and the choice of the next action, each have their own draw of
    noise: ε, ε′ and ε″ of the paper. Every source of randomness is a generator of its own, seeded
    from the config: `acting` for the held draws, `learning` for those of updates, `actions` for
    uniformly random actions.
    """

    def __init__(self, config: Config, observation_shape: tuple[int, ...], actions: int) -> None:
        """Build networks, optimizer and generators; device and precision must be chosen."""
        training = config.training
        if training.device == "auto" or training.precision == "auto":
            raise ValueError("device and precision: got 'auto', expected what was chosen for it")
        self.config = config
        self.actions = actions
        self.device = torch.device(training.device)
        self.online = build_q_network(config, observation_shape, actions).to(self.device)
        self.target: QNetwork = copy.deepcopy(self.online).requires_grad_(False)
        learning = config.learning
        self.optimizer = build_optimizer(self.online.parameters(), learning)
        self._acting = torch.Generator(self.device).manual_seed(training.stream("acting"))
        self._learning = torch.Generator(self.device).manual_seed(training.stream("learning"))
        self._action_generator = np.random.Generator(np.random.PCG64(training.stream("actions")))
        self._epsilon = None
        if config.exploration.has_epsilon:
            self._epsilon = LinearEpsilon(
                config.exploration.epsilon_start,
                config.exploration.epsilon_end,
                config.exploration.epsilon_steps,
                begin=learning.warmup_steps,
            )
        self.noise = None
        if config.exploration.has_noise:
            self.noise = LearnedNoise(
                self.online,
                config.environment.environments,
                self._acting,
                redraw=config.exploration.redraw,
                draw_per_environment=config.exploration.draw_per_environment,
            )
        self.updates = 0
        self.schedule = UpdateSchedule(learning)
        """When updates come due. Whoever trains says when games end."""

    # Acting

    def act(self, observation: np.ndarray, step: int, first: np.ndarray) -> np.ndarray:
        """Choose an action for each environment, (N, …) to (N,), exploring as configured.

        `first` (N,) is true where the observation is an episode's first.
        """
        count = len(observation)
        if step < self.config.learning.warmup_steps:
            return self._action_generator.integers(self.actions, size=count)
        if self.noise is not None:
            self.noise.before_action(first, self.updates)
        greedy = self.greedy(observation)
        if self._epsilon is None:
            return greedy
        return epsilon_greedy(greedy, self.actions, self._epsilon(step), self._action_generator)

    def greedy(self, observation: np.ndarray) -> np.ndarray:
        """Choose argmax Q under the noise in force, (N, …) to (N,).

        In the weights' own precision: in bfloat16 the values of good actions are often equal, and
        games of Pong were lost by it that were won by the same weights in float32.
        """
        with torch.inference_mode():
            q = self.online(torch.from_numpy(observation).to(self.device))
            return q.argmax(-1).cpu().numpy()

    def epsilon(self, step: int) -> float | None:
        """Give ε at an agent step; None without ε-greedy."""
        return None if self._epsilon is None else self._epsilon(step)

    # Learning

    def update(self, batch: Transitions | TensorTransitions) -> Learned:
        """Take one optimisation step and let the acting noise be redrawn.

        Raises LossNotFinite, with the parameters as they were, where the loss or its gradient is
        NaN or infinite.
        """
        loss, errors = self.loss_and_errors(batch)
        value = leave_gradient(
            loss,
            self.online,
            self.optimizer,
            max_norm=self.config.learning.max_gradient_norm,
            update=self.updates + 1,
        )
        set_step_size(self.optimizer, self.learning_rate())
        self.optimizer.step()
        self.updates += 1
        if self.noise is not None:
            self.noise.after_update()
        return Learned(value, errors.cpu().numpy())

    @property
    def generators(self) -> tuple[torch.Generator, torch.Generator]:
        """Give what an update draws from: for the acting draws, and for its own."""
        return self._acting, self._learning

    def learning_rate(self) -> float:
        """Give the step size of the next update: constant, or falling linearly."""
        learning = self.config.learning
        last = learning.learning_rate_steps or self.config.training.steps
        steps = last - learning.warmup_steps
        return step_size(learning, self.schedule.steps_due(self.updates) / max(steps, 1))

    def draws(self) -> Draws:
        """Draw ε for the online net, ε′ for the target net, ε″ for the action choice."""
        if self.noise is None:
            return None, None, None
        online, target, choice = draw(
            self.online, self.target, self.online, generator=self._learning
        )
        return online, target, choice if self.config.exploration.choice_draw else online

    def loss(self, batch: Transitions | TensorTransitions, draws: Draws | None = None) -> Tensor:
        """Give the batch's mean loss; ε, ε′, ε″ are drawn anew unless given."""
        return self.loss_and_errors(batch, draws)[0]

    def loss_and_errors(
        self, batch: Transitions | TensorTransitions, draws: Draws | None = None
    ) -> tuple[Tensor, Tensor]:
        """Give the mean loss, weighted where the batch has weights, and each error (B,)."""
        draws = self.draws() if draws is None else draws
        if self.config.network.atoms:
            losses_tm1 = self._categorical_losses(batch, draws)
            errors = losses_tm1.detach().clamp_min(0)
        else:
            error = self._td_errors(batch, draws)
            losses_tm1 = losses.LOSSES[self.config.learning.loss](error)
            errors = error.detach().abs()
        if batch.weights is not None:
            losses_tm1 = losses_tm1 * self._tensor(batch.weights)
        return losses_tm1.mean(), errors

    def _td_errors(self, batch: Transitions | TensorTransitions, draws: Draws) -> Tensor:
        online_noise, target_noise, choice_noise = draws
        return_t, discount_t = self._tensor(batch.return_t), self._tensor(batch.discount_t)
        with self._precision():
            with torch.no_grad():
                observation_t = self.online.torso.prepare(self._tensor(batch.observation_t))
                with _noise(self.target, target_noise):
                    q_target_t = self.target(observation_t)
                if self.config.learning.double:
                    with _noise(self.online, choice_noise):
                        q_choice_t = self.online(observation_t)
                    target_tm1 = losses.double_q_target(
                        return_t, discount_t, q_target_t, q_choice_t
                    )
                else:
                    target_tm1 = losses.q_target(return_t, discount_t, q_target_t)
            with _noise(self.online, online_noise):
                q_tm1 = self.online(self._tensor(batch.observation_tm1))
        return losses.td_error(q_tm1, self._tensor(batch.action_tm1), target_tm1)

    def _categorical_losses(self, batch: Transitions | TensorTransitions, draws: Draws) -> Tensor:
        online_noise, target_noise, choice_noise = draws
        head = self.target.head
        assert isinstance(head, DistributionalHead), "atoms make a distributional head"
        return_t, discount_t = self._tensor(batch.return_t), self._tensor(batch.discount_t)
        with self._precision():
            with torch.no_grad():
                observation_t = self.online.torso.prepare(self._tensor(batch.observation_t))
                with _noise(self.target, target_noise):
                    probabilities_t = self.target.logits(observation_t).softmax(-1)
                q_t = head.mean(probabilities_t)
                if self.config.learning.double:
                    with _noise(self.online, choice_noise):
                        q_t = self.online(observation_t)
                target_tm1 = losses.categorical_projection(
                    return_t,
                    discount_t,
                    losses.chosen(probabilities_t, q_t.argmax(-1)),
                    head.support,
                )
            with _noise(self.online, online_noise):
                logits_tm1 = self.online.logits(self._tensor(batch.observation_tm1))
        return losses.categorical_loss(logits_tm1, self._tensor(batch.action_tm1), target_tm1)

    def is_finite(self) -> bool:
        """Tell whether all parameters of the online net are finite."""
        with torch.no_grad():
            return all(bool(one.isfinite().all()) for one in self.online.parameters())

    def copy_to_target(self) -> None:
        """Copy the online net's parameters, μ and σ, into the target net; never its noise."""
        self.target.load_state_dict(self.online.state_dict())

    def _tensor(self, values: np.ndarray | Tensor) -> Tensor:
        if isinstance(values, np.ndarray):
            values = torch.from_numpy(values)
        return values.to(self.device)

    def _precision(self) -> AbstractContextManager[object]:
        return products_in(self.config.training.precision, self.device)

    # What is seen of it

    def figures(self, observation: np.ndarray | None = None) -> dict[str, float]:
        """Give SNR and mean |σ| per noisy layer, by the names that metrics have.

        With observations (N, …) of the environments, also what the noise does to the greedy
        actions there. Its draws are seeded by the number of updates: nothing else changes by them.
        """
        figures = noise_figures(self.online)
        if self.noise is not None and observation is not None:
            seed = self.config.training.stream(f"behaviour {self.updates}")
            generator = torch.Generator(self.device).manual_seed(seed)
            figures |= q_behaviour(self.online, self._tensor(observation), generator)
        return figures

    # Saving

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Give everything that goes on changing, as arrays and as plain JSON values."""
        arrays = {
            f"{which}.{name}": to_array(tensor)
            for which, network in (("online", self.online), ("target", self.target))
            for name, tensor in network.state_dict().items()
        }
        arrays.update(optimizer_arrays(self.optimizer, "optimizer"))
        arrays["generator.acting"] = generator_to_array(self._acting)
        arrays["generator.learning"] = generator_to_array(self._learning)
        if self.noise is not None:
            arrays.update(held_draw_arrays(self.online))
        plain = {
            "updates": self.updates,
            "schedule": self.schedule.state(),
            "action_generator": self._action_generator.bit_generator.state,
        }
        return arrays, plain

    def restore(self, arrays: Mapping[str, np.ndarray], plain: Mapping[str, Any]) -> None:
        """Take over what `state` gave; raises KeyError or RuntimeError where it does not fit."""
        self.load_networks(arrays)
        restore_optimizer(self.optimizer, arrays, "optimizer")
        generator_from_array(self._acting, arrays["generator.acting"])
        generator_from_array(self._learning, arrays["generator.learning"])
        if self.noise is not None:
            restore_held_draw(self.online, arrays)
        self.updates = int(plain["updates"])
        # Checkpoints of before there was a schedule have none.
        self.schedule.restore(plain.get("schedule", self.schedule.state()))
        self._action_generator.bit_generator.state = dict(plain["action_generator"])

    def load_networks(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over the networks alone, as evaluation does."""
        for which, network in (("online", self.online), ("target", self.target)):
            prefix = f"{which}."
            network.load_state_dict(
                {
                    name.removeprefix(prefix): torch.from_numpy(array)
                    for name, array in arrays.items()
                    if name.startswith(prefix)
                }
            )


@contextmanager
def _noise(network: nn.Module, drawn: Draw | None) -> Iterator[None]:
    """Use a draw inside; without one, and without noisy layers, change nothing."""
    if drawn is None:
        with mean_weights(network):
            yield
    else:
        with using(network, drawn):
            yield
