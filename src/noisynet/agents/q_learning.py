"""The value-based agent: Q-learning with parts of one's choice."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..layers import Draw, draw, mean_weights, using
from ..networks import DistributionalHead, QNetwork
from ..replay import Batch
from . import losses
from .exploration import LinearEpsilon, Redraw
from .optimizers import autocast_for, backward_and_clip, set_step_size
from .revival import Revival
from .value_agent import ValueAgent

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


class QLearning(ValueAgent):
    """The value-based agent that learns from a replay, by temporal differences.

    Online and target network, and the choice of the next action, each have their own draw of
    noise: ε, ε′ and ε″ of the paper.

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
        precision: "float32", or "bfloat16" for the products of an update; actions are chosen in
            float32: in bfloat16 games of Pong were lost that the same weights won.
        revival: cures that keep the network able to learn; None: none.
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
        revival: Revival | None = None,
        seed: int = 0,
    ) -> None:
        # Copied before it holds a draw.
        self.target: QNetwork = copy.deepcopy(network).requires_grad_(False)
        super().__init__(
            network,
            optimizer,
            actions=actions,
            environments=environments,
            max_gradient_norm=max_gradient_norm,
            redraw=redraw,
            draw_per_environment=draw_per_environment,
            epsilon=epsilon,
            warmup_steps=warmup_steps,
            precision=precision,
            revival=revival,
            seed=seed,
        )
        self.double = double
        self._loss = losses.LOSSES[loss]
        self._choice_draw = choice_draw

    @property
    def online(self) -> QNetwork:
        """The network that learns, and that chooses the actions."""
        return self.network

    @property
    def networks(self) -> dict[str, QNetwork]:
        """The networks by the names that checkpoints have for them."""
        return {"online": self.online, "target": self.target}

    # Learning

    def update(self, batch: AnyBatch, step_size: float | None = None) -> Learned:
        """Take one optimisation step and let the acting noise be redrawn.

        `step_size` replaces the optimizer's. Raises LossNotFinite, with the parameters as they
        were, where the loss or its gradient is NaN or infinite.
        """
        loss, errors = self.loss_and_errors(batch)
        value = backward_and_clip(
            loss,
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
        if self.must_revive:
            self.revive(batch.observation_tm1)
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
                with noise_inside(self.target, target_noise):
                    q_target_t = self.target(observation_t)
                if self.double:
                    with noise_inside(self.online, choice_noise):
                        q_choice_t = self.online(observation_t)
                    target_tm1 = losses.double_q_target(
                        return_t, discount_t, q_target_t, q_choice_t
                    )
                else:
                    target_tm1 = losses.q_target(return_t, discount_t, q_target_t)
            with noise_inside(self.online, online_noise):
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
                with noise_inside(self.target, target_noise):
                    probabilities_t = self.target.logits(observation_t).softmax(-1)
                q_t = head.mean(probabilities_t)
                if self.double:
                    with noise_inside(self.online, choice_noise):
                        q_t = self.online(observation_t)
                target_tm1 = losses.categorical_projection(
                    return_t,
                    discount_t,
                    losses.chosen(probabilities_t, q_t.argmax(-1)),
                    head.support,
                )
            with noise_inside(self.online, online_noise):
                logits_tm1 = self.online.logits(batch.observation_tm1)
        return losses.categorical_loss(logits_tm1, batch.action_tm1, target_tm1)

    def copy_to_target(self) -> None:
        """Copy the online net's parameters, μ and σ, into the target net; never its noise."""
        self.target.load_state_dict(self.online.state_dict())


@contextmanager
def noise_inside(network: nn.Module, drawn: Draw | None) -> Iterator[None]:
    """Use a draw inside; without one, and without noisy layers, change nothing."""
    if drawn is None:
        with mean_weights(network):
            yield
    else:
        with using(network, drawn):
            yield
