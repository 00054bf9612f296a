"""The value-based agent: Q-learning with parts of one's choice."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..layers import Draw, draw, mean_weights, noisy_layers, using
from ..networks import DistributionalHead, QNetwork
from ..replay import Batch
from ..runs.seeds import stream
from . import losses
from .exploration import LearnedNoise, LinearEpsilon, Redraw, epsilon_greedy
from .noise_metrics import noise_figures, q_behaviour
from .optimizers import autocast_for, backward_and_clip, is_finite, set_step_size
from .saved_arrays import (
    check_noise_kind,
    generator_from_array,
    generator_to_array,
    held_draw_arrays,
    load_network,
    network_arrays,
    optimizer_arrays,
    restore_held_draw,
    restore_optimizer,
)

Draws = tuple[Draw | None, Draw | None, Draw | None]
"""ε for the online net, ε′ for the target net, ε″ for the choice of the next action."""

AnyBatch = Batch[np.ndarray] | Batch[Tensor]


@dataclass(frozen=True)
class Learned:
    """The batch's mean loss, and each transition's error (B,), ≥ 0.

    The error is |δ|, or the loss itself where values are distributions: what prioritised replay
    samples by (arXiv 1511.05952, §3.3; arXiv 1710.02298, §3).
    """

    loss: float
    errors: np.ndarray


class QLearning:
    """The value-based agent: acts, and learns Q by temporal differences.

    Online and target network, and the choice of the next action, each have their own draw of
    noise: ε, ε′ and ε″ of the paper. Every source of randomness is a generator of its own, seeded
    from `seed`: `acting` for the held draws, `learning` for those of updates, `actions` for
    uniformly random actions.

    Args:
        network: the online net, on its device; the target net starts as its copy.
        optimizer: of the network's parameters.
        actions: how many there are.
        environments: how many act side by side, each with a draw of its own.
        double: the online net chooses the next action (arXiv 1509.06461).
        loss: of the TD error; a network of distributions has its own.
        max_gradient_norm: larger gradients are scaled down; None: none is.
        redraw: when the acting noise is drawn anew.
        draw_per_environment: False: one acting draw for all environments.
        choice_draw: False: ε chooses the next action, in place of ε″.
        epsilon: ε-greedy beside the noise, or in its place.
        warmup_steps: agent steps of uniformly random actions at the start.
        precision: "float32", or "bfloat16" for the products of an update.
        seed: of everything random.
    """

    def __init__(
        self,
        network: QNetwork,
        optimizer: torch.optim.Optimizer,
        *,
        actions: int,
        environments: int,
        double: bool = True,
        loss: Literal["huber", "squared"] = "huber",
        max_gradient_norm: float | None = 10.0,
        redraw: Redraw = "update",
        draw_per_environment: bool = True,
        choice_draw: bool = True,
        epsilon: LinearEpsilon | None = None,
        warmup_steps: int = 0,
        precision: Literal["float32", "bfloat16"] = "float32",
        seed: int = 0,
    ) -> None:
        self.online = network
        self.target: QNetwork = copy.deepcopy(network).requires_grad_(False)
        self.optimizer = optimizer
        self.actions = actions
        self.double = double
        self.max_gradient_norm = max_gradient_norm
        self.epsilon = epsilon
        self.warmup_steps = warmup_steps
        self.precision = precision
        self.device = next(network.parameters()).device
        self._loss = losses.LOSSES[loss]
        self._choice_draw = choice_draw
        self._seed = seed
        self._acting = torch.Generator(self.device).manual_seed(stream(seed, "acting"))
        self._learning = torch.Generator(self.device).manual_seed(stream(seed, "learning"))
        self._action_generator = np.random.Generator(np.random.PCG64(stream(seed, "actions")))
        self.noise = None
        if noisy_layers(network):
            self.noise = LearnedNoise(
                network,
                environments,
                self._acting,
                redraw=redraw,
                draw_per_environment=draw_per_environment,
            )
        self.updates = 0

    @property
    def network(self) -> QNetwork:
        """The network that chooses the actions: the online net."""
        return self.online

    # Acting

    def act(self, observation: np.ndarray, step: int, first: np.ndarray) -> np.ndarray:
        """Choose an action for each environment, (N, …) to (N,), exploring as configured.

        `first` (N,) is true where the observation is an episode's first.
        """
        count = len(observation)
        if step < self.warmup_steps:
            return self._action_generator.integers(self.actions, size=count)
        if self.noise is not None:
            self.noise.before_action(first, self.updates)
        greedy = self.greedy(observation)
        if self.epsilon is None:
            return greedy
        return epsilon_greedy(greedy, self.actions, self.epsilon(step), self._action_generator)

    def greedy(self, observation: np.ndarray) -> np.ndarray:
        """Choose argmax Q under the noise in force, (N, …) to (N,).

        In the weights' own precision: in bfloat16 the values of good actions are often equal, and
        games of Pong were lost by it that were won by the same weights in float32.
        """
        with torch.inference_mode():
            q = self.online(torch.from_numpy(observation).to(self.device))
            return q.argmax(-1).cpu().numpy()

    # Learning

    def update(self, batch: AnyBatch, step_size: float | None = None) -> Learned:
        """Take one optimisation step and let the acting noise be redrawn.

        `step_size` replaces the optimizer's. Raises LossNotFinite, with the parameters as they
        were, where the loss or its gradient is NaN or infinite.
        """
        loss, errors = self.loss_and_errors(batch)
        value = backward_and_clip(
            loss,
            self.online,
            self.optimizer,
            max_norm=self.max_gradient_norm,
            update=self.updates + 1,
        )
        if step_size is not None:
            set_step_size(self.optimizer, step_size)
        self.optimizer.step()
        self.updates += 1
        if self.noise is not None:
            self.noise.after_update()
        return Learned(value, errors.cpu().numpy())

    @property
    def generators(self) -> tuple[torch.Generator, torch.Generator]:
        """What an update draws from: for the acting draws, and for its own."""
        return self._acting, self._learning

    def draws(self) -> Draws:
        """Draw ε for the online net, ε′ for the target net, ε″ for the action choice."""
        if self.noise is None:
            return None, None, None
        online, target, choice = draw(
            self.online, self.target, self.online, generator=self._learning
        )
        return online, target, choice if self._choice_draw else online

    def loss_and_errors(self, batch: AnyBatch, draws: Draws | None = None) -> tuple[Tensor, Tensor]:
        """Return the mean loss, weighted where the batch has weights, and each error (B,).

        ε, ε′ and ε″ are drawn anew unless given.
        """
        draws = self.draws() if draws is None else draws
        on_device = batch.to(self.device)
        if isinstance(self.target.head, DistributionalHead):
            losses_tm1 = self._categorical_losses(on_device, self.target.head, draws)
            errors = losses_tm1.detach().clamp_min(0)
        else:
            error = self._td_errors(on_device, draws)
            losses_tm1 = self._loss(error)
            errors = error.detach().abs()
        if on_device.weights is not None:
            losses_tm1 = losses_tm1 * on_device.weights
        return losses_tm1.mean(), errors

    def _td_errors(self, batch: Batch[Tensor], draws: Draws) -> Tensor:
        online_noise, target_noise, choice_noise = draws
        return_t, discount_t = batch.return_t, batch.discount_t
        with autocast_for(self.precision, self.device):
            with torch.no_grad():
                observation_t = self.online.torso.prepare(batch.observation_t)
                with _noise(self.target, target_noise):
                    q_target_t = self.target(observation_t)
                if self.double:
                    with _noise(self.online, choice_noise):
                        q_choice_t = self.online(observation_t)
                    target_tm1 = losses.double_q_target(
                        return_t, discount_t, q_target_t, q_choice_t
                    )
                else:
                    target_tm1 = losses.q_target(return_t, discount_t, q_target_t)
            with _noise(self.online, online_noise):
                q_tm1 = self.online(batch.observation_tm1)
        return losses.td_error(q_tm1, batch.action_tm1, target_tm1)

    def _categorical_losses(
        self, batch: Batch[Tensor], head: DistributionalHead, draws: Draws
    ) -> Tensor:
        online_noise, target_noise, choice_noise = draws
        return_t, discount_t = batch.return_t, batch.discount_t
        with autocast_for(self.precision, self.device):
            with torch.no_grad():
                observation_t = self.online.torso.prepare(batch.observation_t)
                with _noise(self.target, target_noise):
                    probabilities_t = self.target.logits(observation_t).softmax(-1)
                q_t = head.mean(probabilities_t)
                if self.double:
                    with _noise(self.online, choice_noise):
                        q_t = self.online(observation_t)
                target_tm1 = losses.categorical_projection(
                    return_t,
                    discount_t,
                    losses.chosen(probabilities_t, q_t.argmax(-1)),
                    head.support,
                )
            with _noise(self.online, online_noise):
                logits_tm1 = self.online.logits(batch.observation_tm1)
        return losses.categorical_loss(logits_tm1, batch.action_tm1, target_tm1)

    def is_finite(self) -> bool:
        """Return whether all parameters of the online net are finite."""
        return is_finite(self.online)

    def copy_to_target(self) -> None:
        """Copy the online net's parameters, μ and σ, into the target net; never its noise."""
        self.target.load_state_dict(self.online.state_dict())

    # What is seen of it

    def figures(self) -> dict[str, float]:
        """Return SNR and mean |σ| per noisy layer, by the names that metrics have."""
        return noise_figures(self.online)

    def behaviour(self, observation: np.ndarray) -> dict[str, float]:
        """Return what the noise does to the greedy actions for observations (N, …).

        Its draws are seeded by the number of updates: nothing else changes by them.
        """
        if self.noise is None:
            return {}
        seed = stream(self._seed, f"behaviour {self.updates}")
        generator = torch.Generator(self.device).manual_seed(seed)
        return q_behaviour(self.online, torch.from_numpy(observation).to(self.device), generator)

    # Saving

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return everything that goes on changing, as arrays and as plain JSON values."""
        arrays = {
            **network_arrays(self.online, "online"),
            **network_arrays(self.target, "target"),
            **optimizer_arrays(self.optimizer, "optimizer"),
        }
        arrays["generator.acting"] = generator_to_array(self._acting)
        arrays["generator.learning"] = generator_to_array(self._learning)
        if self.noise is not None:
            arrays.update(held_draw_arrays(self.online))
        plain = {
            "updates": self.updates,
            "action_generator": self._action_generator.bit_generator.state,
        }
        return arrays, plain

    def restore(self, arrays: Mapping[str, np.ndarray], plain: Mapping[str, Any]) -> None:
        """Take over what `state` returned. Raises KeyError or RuntimeError for a misfit."""
        self.load_networks(arrays)
        restore_optimizer(self.optimizer, arrays, "optimizer")
        generator_from_array(self._acting, arrays["generator.acting"])
        generator_from_array(self._learning, arrays["generator.learning"])
        if self.noise is not None:
            restore_held_draw(self.online, arrays)
        self.updates = int(plain["updates"])
        self._action_generator.bit_generator.state = dict(plain["action_generator"])

    def load_networks(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over the networks alone, as evaluation does; raises RuntimeError for a misfit."""
        load_network(self.online, arrays, "online")
        load_network(self.target, arrays, "target")
        if self.noise is not None:
            check_noise_kind(self.online, arrays)


@contextmanager
def _noise(network: nn.Module, drawn: Draw | None) -> Iterator[None]:
    """Use a draw inside; without one, and without noisy layers, change nothing."""
    if drawn is None:
        with mean_weights(network):
            yield
    else:
        with using(network, drawn):
            yield
