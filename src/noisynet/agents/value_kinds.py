"""Predictions of a Q-network and their losses, for each kind of head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from ..networks import DistributionalHead, QNetwork, QuantileHead
from ..replay import Batch
from . import losses
from .munchausen import Munchausen


@dataclass(frozen=True)
class Predictions:
    """The outputs of an update's forward passes, each under its own draw."""

    online_tm1: Tensor
    """Predictions of the online net under ε, for the states that were acted in."""
    target_t: Tensor
    """Predictions of the target net under ε′, for the states that followed."""
    q_choice_t: Tensor | None
    """(B, actions): Q of the online net under ε″, for the states that followed; None if it does not
    choose the next action."""
    tau: Tensor | None = None
    """(N, B): the fractions of `online_tm1`, if it holds quantiles."""


class ValueKind(ABC):
    """A kind of prediction: its forward, and its losses."""

    @abstractmethod
    def predict(self, network: QNetwork, observation: Tensor, tau: Tensor | None) -> Tensor:
        """Return what a network predicts for observations (B, …)."""

    @abstractmethod
    def losses_and_errors(self, batch: Batch[Tensor], seen: Predictions) -> tuple[Tensor, Tensor]:
        """Return each transition's loss, and its error ≥ 0 without gradients: (B,) and (B,)."""


class ExpectedValues(ValueKind):
    """Q-values (B, actions), learned by their TD error."""

    def __init__(self, loss: Callable[[Tensor], Tensor], munchausen: Munchausen | None) -> None:
        self._loss = loss
        self._munchausen = munchausen

    def predict(self, network: QNetwork, observation: Tensor, tau: Tensor | None) -> Tensor:  # noqa: ARG002 - of quantiles
        """Return Q-values (B, actions)."""
        return network(observation)

    def losses_and_errors(self, batch: Batch[Tensor], seen: Predictions) -> tuple[Tensor, Tensor]:
        """Return the losses of the TD errors, and their absolute values."""
        returns = batch.return_t, batch.discount_t
        if self._munchausen is not None:
            target_tm1 = self._munchausen.target(
                *returns, seen.target_t, seen.online_tm1.detach(), batch.action_tm1
            )
        elif seen.q_choice_t is not None:
            target_tm1 = losses.double_q_target(*returns, seen.target_t, seen.q_choice_t)
        else:
            target_tm1 = losses.q_target(*returns, seen.target_t)
        error = losses.td_error(seen.online_tm1, batch.action_tm1, target_tm1)
        return self._loss(error), error.detach().abs()


class CategoricalValues(ValueKind):
    """Logits (B, actions, atoms), learned by the KL divergence to targets (arXiv 1707.06887)."""

    def __init__(self, head: DistributionalHead) -> None:
        self._head = head

    def predict(self, network: QNetwork, observation: Tensor, tau: Tensor | None) -> Tensor:  # noqa: ARG002 - of quantiles
        """Return logits (B, actions, atoms)."""
        return network.logits(observation)

    def losses_and_errors(self, batch: Batch[Tensor], seen: Predictions) -> tuple[Tensor, Tensor]:
        """Return the KL divergences from the targets, both as losses and as errors."""
        probabilities_t = seen.target_t.softmax(-1)
        q_t = seen.q_choice_t
        if q_t is None:
            q_t = self._head.mean(probabilities_t)
        target_tm1 = losses.categorical_projection(
            batch.return_t,
            batch.discount_t,
            losses.atoms_of(probabilities_t, q_t.argmax(-1)),
            self._head.support,
        )
        found = losses.categorical_loss(seen.online_tm1, batch.action_tm1, target_tm1)
        return found, found.detach().clamp_min(0)


class ImplicitQuantiles(ValueKind):
    """Quantiles (K, B, actions) at τ (K, B), learned by the quantile Huber loss (IQN)."""

    def __init__(self, munchausen: Munchausen | None) -> None:
        self._munchausen = munchausen

    def predict(self, network: QNetwork, observation: Tensor, tau: Tensor | None) -> Tensor:
        """Return quantiles (K, B, actions)."""
        assert tau is not None, "quantiles are predicted at some τ"
        return network.quantiles(observation, tau)

    def losses_and_errors(self, batch: Batch[Tensor], seen: Predictions) -> tuple[Tensor, Tensor]:
        """Return the quantile Huber losses, and |δ|: summed over predictions, mean over targets."""
        assert seen.tau is not None, "quantiles were predicted at some τ"
        if self._munchausen is not None:
            q_tm1 = seen.online_tm1.detach().mean(0)
            target_tm1 = self._munchausen.target(
                batch.return_t, batch.discount_t, seen.target_t, q_tm1, batch.action_tm1
            )
        else:
            q_t = seen.target_t.mean(0) if seen.q_choice_t is None else seen.q_choice_t
            best_t = losses.quantiles_of(seen.target_t, q_t.argmax(-1))
            target_tm1 = batch.return_t + batch.discount_t * best_t
        quantile_tm1 = losses.quantiles_of(seen.online_tm1, batch.action_tm1)
        error = losses.quantile_errors(quantile_tm1, target_tm1)
        return losses.quantile_huber(error, seen.tau), error.detach().abs().mean(1).sum(0)


def value_kind(
    head: nn.Module, loss: Callable[[Tensor], Tensor], munchausen: Munchausen | None
) -> ValueKind:
    """Return the kind of values that a head predicts; `loss` is the loss of TD errors.

    Raises ValueError for Munchausen targets with atoms, which cannot be combined.
    """
    if isinstance(head, QuantileHead):
        return ImplicitQuantiles(munchausen)
    if not isinstance(head, DistributionalHead):
        return ExpectedValues(loss, munchausen)
    if munchausen is not None:
        raise ValueError(
            "munchausen: got a network of atoms, expected one of Q-values or quantiles: its target "
            "moves each action's values by another amount, and atoms stay where they are"
        )
    return CategoricalValues(head)
