"""The value-based agent that learns from a replay: Q-learning with parts to choose from."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..control import PenaltyWeight
from ..layers import Draw, draw, mean_weights, using
from ..networks import QNetwork, QuantileHead
from ..replay import Batch
from . import losses
from .arguments import check_choice
from .exploration import LinearEpsilon, Redraw
from .munchausen import Munchausen
from .noise_control import Control
from .optimizers import autocast_for
from .quantile_samples import QuantileSampler, SampledQuantiles
from .revival import Revival
from .value_agent import ValueAgent
from .value_kinds import Predictions, value_kind

Draws = tuple[Draw | None, Draw | None, Draw | None]
"""ε for the online net, ε′ for the target net, ε″ for the choice of the next action."""

AnyBatch = Batch[np.ndarray] | Batch[Tensor]


@dataclass(frozen=True)
class Learned:
    """The batch's mean loss, and each transition's error (B,), ≥ 0.

    Prioritised replay samples by the error (arXiv 1511.05952, §3.3; arXiv 1710.02298, §3). It is
    |δ| for expected values, and the loss itself for distributions over atoms. For quantiles it is
    |δ_ij|, summed over the predictions i and averaged over the targets j, as in the loss.
    """

    loss: float
    errors: np.ndarray


class QLearning(ValueAgent):
    """The value-based agent that learns from a replay, by temporal differences.

    The online network, the target network and the choice of the next action each have their own
    draw of noise: ε, ε′ and ε″ in the paper. Raises ValueError for an unknown name, and for noise
    that is redrawn after each rollout, since a replay has no rollouts.

    Args:
        network: online network, already on its device; the target network starts as its copy.
        optimizer: optimizer of the network's parameters.
        actions: number of actions.
        environments: number of environments that act in parallel, each with its own draw.
        double: True: the online net chooses the next action (arXiv 1509.06461).
        loss: loss of the TD error; networks that predict distributions have their own loss.
        munchausen: targets of the softmax policy; None: of the greedy one. The log-policy added to
            the reward comes from the forward pass under ε that the update learns from.
        quantile_samples: N and N′, the numbers of implicit quantiles of the online and target nets.
        max_gradient_norm: norm to which larger gradients are scaled down; None: no clipping.
        redraw: when the acting noise is redrawn.
        draw_per_environment: False: one acting draw for all environments.
        choice_draw: False: the next action is chosen under ε instead of ε″.
        epsilon: schedule of ε-greedy, with the noise or instead of it; None: no ε.
        control: schedule or target for the noise's scale; None: the scale is constant.
        penalty: weight, by the mean return, of the outputs' mean |σ| in the loss; None: no penalty.
        warmup_steps: agent steps of uniformly random actions at the start.
        precision: "float32", or "bfloat16" for the matrix products of an update. Actions are always
            chosen in float32: in bfloat16, weights lost games of Pong that they win in float32.
        revival: cures that keep the network able to learn; None: no cures.
        seed: seed of all random numbers.
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
        munchausen: Munchausen | None = None,
        quantile_samples: tuple[int, int] = (8, 8),
        max_gradient_norm: float | None = 10.0,
        redraw: Redraw = "update",
        draw_per_environment: bool = True,
        choice_draw: bool = True,
        epsilon: LinearEpsilon | None = None,
        control: Control | None = None,
        penalty: PenaltyWeight | None = None,
        warmup_steps: int = 0,
        precision: Literal["float32", "bfloat16"] = "float32",
        revival: Revival | None = None,
        seed: int = 0,
    ) -> None:
        if redraw == "rollout":
            raise ValueError(
                "redraw: got rollout, expected step, update or episode: a replay has no rollouts"
            )
        check_choice("loss", loss, losses.LOSSES)
        # Copied before the online network holds a draw, which the target should not copy.
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
            control=control,
            penalty=penalty,
            warmup_steps=warmup_steps,
            precision=precision,
            revival=revival,
            seed=seed,
        )
        self.double = double
        self._choice_draw = choice_draw
        # Munchausen targets average over the target net's softmax policy: no action is chosen.
        self._online_chooses = double and munchausen is None
        head = self.target.head
        self._kind = value_kind(head, losses.LOSSES[loss], munchausen)
        self._quantiles: QuantileSampler | None = None
        if isinstance(head, QuantileHead):
            online, of_target = quantile_samples
            self._quantiles = QuantileSampler(
                online=online, target=of_target, acting=head.samples, seed=seed, device=self.device
            )
            self._generators |= self._quantiles.generators

    @property
    def online(self) -> QNetwork:
        """The network that learns, and that chooses the actions."""
        return self.network

    @property
    def networks(self) -> dict[str, QNetwork]:
        """The networks by their names in checkpoints; the one that acts comes first."""
        return {"online": self.online, "target": self.target}

    def _acted(self, observation: np.ndarray) -> np.ndarray:
        if self._quantiles is None:
            return self.greedy(observation)
        tau = self._quantiles.of_actions(len(observation))
        with torch.inference_mode(), autocast_for(self._acting_precision, self.device):
            q = self._q(self._tensor(observation), tau)
            return q.argmax(-1).cpu().numpy()

    # Learning

    def update(self, batch: AnyBatch, step_size: float | None = None) -> Learned:
        """Take one optimisation step, and redraw acting noise that is redrawn by updates.

        `step_size` replaces the optimizer's. Raises LossNotFinite, and leaves the parameters
        unchanged, if the loss or its gradient is NaN or infinite.
        """
        loss, errors = self.loss_and_errors(batch)
        value = self._take_step(loss, step_size)
        if self.must_revive:
            self.revive(batch.observation_tm1)
        return Learned(value, errors.cpu().numpy())

    @property
    def generators(self) -> tuple[torch.Generator, ...]:
        """The generators that an update uses: for acting draws, its own draws, and its τ."""
        quantiles = () if self._quantiles is None else (self._quantiles.learning,)
        return self._acting, self._learning, *quantiles

    def draws(self) -> Draws:
        """Draw ε for the online net, ε′ for the target net, ε″ for the action choice."""
        if self.noise is None:
            return None, None, None
        online, target, choice = draw(
            self.online, self.target, self.online, generator=self._learning
        )
        return online, target, choice if self._choice_draw else online

    def loss_and_errors(
        self,
        batch: AnyBatch,
        draws: Draws | None = None,
        tau: SampledQuantiles | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the mean loss, weighted if the batch has weights, and the errors (B,).

        The σ penalty is part of the loss, but not of the errors. ε, ε′ and ε″ are drawn unless they
        are given, and so are the τ of implicit quantiles.
        """
        draws = self.draws() if draws is None else draws
        on_device = batch.to(self.device)
        losses_tm1, errors = self._kind.losses_and_errors(
            on_device, self._predictions(on_device, draws, tau)
        )
        if on_device.weights is not None:
            losses_tm1 = losses_tm1 * on_device.weights
        return self._with_penalty(losses_tm1.mean()), errors

    def _predictions(
        self, batch: Batch[Tensor], draws: Draws, tau: SampledQuantiles | None
    ) -> Predictions:
        online_noise, target_noise, choice_noise = draws
        if tau is None and self._quantiles is not None:
            tau = self._quantiles.of_update(len(batch), choice=self._online_chooses)
        online_tau, target_tau, choice_tau = (
            (None, None, None) if tau is None else (tau.online, tau.target, tau.choice)
        )
        with autocast_for(self.precision, self.device):
            with torch.no_grad():
                observation_t = self.online.torso.prepare(batch.observation_t)
                with noise_inside(self.target, target_noise):
                    target_t = self._kind.predict(self.target, observation_t, target_tau)
                q_choice_t = None
                if self._online_chooses:
                    with noise_inside(self.online, choice_noise):
                        q_choice_t = self._q(observation_t, choice_tau)
            with noise_inside(self.online, online_noise):
                online_tm1 = self._kind.predict(self.online, batch.observation_tm1, online_tau)
        return Predictions(online_tm1, target_t, q_choice_t, online_tau)

    def _q(self, observation: Tensor, tau: Tensor | None) -> Tensor:
        """Return the online net's Q (B, actions); with τ (K, B), the mean of its quantiles."""
        if tau is None:
            return self.online(observation)
        return self.online.quantiles(observation, tau).mean(0)

    def copy_to_target(self) -> None:
        """Copy the online net's parameters, μ and σ, into the target net; never its noise."""
        self.target.load_state_dict(self.online.state_dict())


@contextmanager
def noise_inside(network: nn.Module, drawn: Draw | None) -> Iterator[None]:
    """Run the body under a draw; None: under the mean weights."""
    if drawn is None:
        with mean_weights(network):
            yield
    else:
        with using(network, drawn):
            yield
