"""The value-based agent that learns from rollouts: Q(λ) without replay and target network, PQN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..control import PenaltyWeight
from ..layers import Draw, draw, held
from ..networks import QNetwork
from ..runs.seeds import stream
from . import losses
from .exploration import LinearEpsilon, Redraw
from .noise_control import Control
from .optimizers import autocast_for, backward_and_clip, set_step_size
from .prepared_rollout import Minibatch, PreparedRollout
from .q_learning import noise_inside
from .revival import Revival
from .rollout import Rollout
from .static_forward import StaticForward
from .step_priorities import StepPriorities, systematic_sample
from .value_agent import ValueAgent

LearningDraw = Literal["fresh", "rows", "acted"]
"""Under which draw an update learns: one of its own, one of its own for each step of the minibatch,
or each step under the one that acted."""
TargetDraw = Literal["acted", "fresh", "means"]
"""Under which draw targets are made: the one that acted, one of their own, or none."""
_ROWS = 256
"""Observations that are looked at in one pass while targets are made."""


@dataclass(frozen=True)
class ValuesLearned:
    """What an update reports: means over its minibatch."""

    loss: float
    q: float
    """Q of the actions that were taken."""


@dataclass(frozen=True)
class ActingPass:
    """What an action was chosen by, so that learning need not compute it again."""

    prepared: Tensor
    """(N, …): the observation as the torso takes it."""
    value: Tensor
    """(N,): max_a Q under the noise that acted."""


class ParallelQLearning(ValueAgent):
    """The value-based agent that learns from rollouts of parallel environments (arXiv 2407.04811).

    λ-returns are made from a whole rollout, and learned in a few epochs of minibatches; layer norm
    in the network is what keeps it stable without a target network. With noise, each environment
    acts under a draw of its own, held over the rollout.

    Args:
        network: of the Q-values, on its device.
        optimizer: of the network's parameters.
        actions: how many there are.
        environments: how many act side by side.
        return_lambda: λ of the targets: 0 bootstraps after one step, 1 at the rollout's end.
        epochs: how often a rollout is learned.
        minibatches: in an epoch.
        loss: of the error.
        priorities: which steps minibatches prefer; None: each step is learned once in an epoch.
        learning_draw: see `LearningDraw`.
        target_draw: see `TargetDraw`.
        max_gradient_norm: larger gradients are scaled down; None: none is.
        redraw: when the acting noise is drawn anew: "rollout", before each, or as elsewhere.
        draw_per_environment: False: one acting draw for all environments.
        epsilon: ε-greedy beside the noise, or in its place.
        control: of the noise's scale, by a schedule or a target; None: it stays as it is.
        penalty: weight, by the returns, of the outputs' mean |σ| in the loss; None: no penalty.
        precision: "float32", or "bfloat16" for the products, of acting too.
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
        return_lambda: float = 0.65,
        epochs: int = 2,
        minibatches: int = 32,
        loss: Literal["huber", "squared"] = "squared",
        priorities: StepPriorities | None = None,
        learning_draw: LearningDraw = "fresh",
        target_draw: TargetDraw = "acted",
        max_gradient_norm: float | None = 10.0,
        redraw: Redraw = "rollout",
        draw_per_environment: bool = True,
        epsilon: LinearEpsilon | None = None,
        control: Control | None = None,
        penalty: PenaltyWeight | None = None,
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
            redraw=redraw,
            draw_per_environment=draw_per_environment,
            epsilon=epsilon,
            control=control,
            penalty=penalty,
            precision=precision,
            acting_precision=precision,
            revival=revival,
            seed=seed,
        )
        self._return_lambda = return_lambda
        self._epochs = epochs
        self.minibatches = minibatches
        """In an epoch, of a rollout whose steps are enough for so many."""
        self._loss = losses.LOSSES[loss]
        self._priorities = priorities
        self._learning_draw = learning_draw
        self._target_draw = target_draw
        self._shuffling = np.random.Generator(np.random.PCG64(stream(seed, "minibatches")))
        self._rollout: PreparedRollout | None = None
        self._static_forward: StaticForward | None = None
        self.acting_pass: ActingPass | None = None
        """What the last action was chosen by."""

    def greedy(self, observation: np.ndarray) -> np.ndarray:
        """Choose argmax Q under the noise in force, (N, …) to (N,); note it in `acting_pass`."""
        if self._static_forward is None:
            prepared, value, action = self._forward(self._tensor(observation))
        else:
            prepared, value, action = self._static_forward(observation)
        self.acting_pass = ActingPass(prepared, value)
        return action.cpu().numpy()

    def _forward(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return observations (N, …) as the torso takes them, max_a Q (N,), and its actions."""
        with torch.no_grad(), autocast_for(self.precision, self.device):
            prepared = self.network.torso.prepare(observation)
            value, action = self.network(prepared).max(-1)
        return prepared, value, action

    def act_from_graph(self) -> None:
        """Choose actions by one CUDA graph from here on; the acting draw must stay in its place.

        All observations have the shape of the next one then.
        """
        self._static_forward = StaticForward(self._forward, self.device)

    # Learning

    def begin(self, rollout: Rollout, passes: Sequence[ActingPass] = ()) -> None:
        """Make the targets of a rollout that was just played, and redraw the acting noise.

        `passes` is what each of its T actions was chosen by; without it, it is computed under the
        weights and the draw of now: with samplers, under the draw that acted last, which is that of
        the whole rollout where it is held over one. What is left of the rollout before is not
        learned.
        """
        self._rollout = None
        drawn = None if self.noise is None else held(self.network)
        taken = np.flatnonzero(rollout.taken_t)
        if len(taken):
            target_t, value_t, prepared = self._targets(rollout, drawn, passes)
            self._rollout = PreparedRollout(
                rollout,
                drawn,
                target_t,
                prepared,
                self._order(taken, (target_t - value_t).flatten()),
                min(self.minibatches, len(taken)),
                -(-target_t.numel() // self.minibatches),
            )
        self.next_rollout()

    def _order(self, taken: np.ndarray, error: Tensor) -> np.ndarray:
        """Return the numbers of the steps that each epoch learns, (epochs, steps), shuffled."""
        if self._priorities is None:
            epochs = [taken] * self._epochs
        else:
            priority = self._priorities(error.cpu().numpy()[taken])
            epochs = [
                taken[systematic_sample(priority, self._shuffling)] for _ in range(self._epochs)
            ]
        return np.stack([self._shuffling.permutation(epoch) for epoch in epochs])

    def next_rollout(self) -> None:
        """Redraw the acting noise, where it is held over a rollout."""
        if self.noise is not None:
            self.noise.after_rollout()

    @property
    def updates_left(self) -> int:
        """Minibatches that are left of the rollout that is being learned from."""
        return 0 if self._rollout is None else self._rollout.left

    def update(self, step_size: float | None = None) -> ValuesLearned:
        """Take one optimisation step, on the next minibatch of the rollout.

        `step_size` replaces the optimizer's. Raises LossNotFinite, with the parameters as they
        were, where the loss or its gradient is NaN or infinite.
        """
        loss, q = self.loss_and_q()
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
        self.go_on()
        return ValuesLearned(value, float(q))

    def go_on(self) -> None:
        """Apply the cures that are due after an update, and go on to the next minibatch."""
        current = self.current
        if self.must_revive:
            self.revive(current.observations())
        current.done += 1
        if not current.left:
            self._rollout = None

    @property
    def current(self) -> PreparedRollout:
        """The rollout that is being learned from. Raises ValueError where there is none."""
        if self._rollout is None:
            raise ValueError("update: got no rollout to learn from, expected `begin` before it")
        return self._rollout

    @property
    def generators(self) -> tuple[torch.Generator, ...]:
        """What an update draws from: for the acting draws, and for its own."""
        return self._acting, self._learning

    def loss_and_q(self, minibatch: Minibatch | None = None) -> tuple[Tensor, Tensor]:
        """Return the mean loss of a minibatch, and the mean Q of the actions taken.

        None: of the next minibatch of the rollout.
        """
        batch = self._minibatch() if minibatch is None else minibatch
        drawn = batch.acted
        if drawn is None and self.noise is not None:
            drawn = self._own_draw(len(batch.observation))
        with autocast_for(self.precision, self.device), noise_inside(self.network, drawn):
            q = self.network(batch.observation)
        error = losses.td_error(q, batch.action, batch.target)
        loss = self._with_penalty(batch.mean(self._loss(error)))
        return loss, batch.mean((batch.target - error).detach())

    def _own_draw(self, steps: int) -> Draw:
        """Return a draw to learn so many steps under: one that they share, or one for each."""
        if self._learning_draw != "rows":
            return draw(self.network, generator=self._learning)
        # As many for a shorter minibatch, so that what is drawn next does not depend on it.
        drawn = draw(self.network, rows=self.current.longest, generator=self._learning)
        return drawn if steps == drawn.rows else drawn[:steps]

    def _minibatch(self) -> Minibatch:
        current = self.current
        index = self._tensor(current.minibatch())
        return Minibatch(
            observation=current.prepared.flatten(0, 1).index_select(0, index),
            action=self._tensor(current.rollout.action_t).flatten()[index],
            target=current.target_t.flatten()[index],
            acted=self.acted_in(index, current.drawn),
        )

    def acted_in(self, index: Tensor, drawn: Draw | None) -> Draw | None:
        """Return the draw that acted in steps of a rollout, where it is learned under; else None.

        `drawn` is that of all its environments, `index` (B,) the numbers of the steps.
        """
        if drawn is None or self._learning_draw != "acted":
            return None
        if drawn.rows is None:
            return drawn
        return drawn[index % drawn.rows]  # of each step's environment

    def _targets(
        self, rollout: Rollout, drawn: Draw | None, passes: Sequence[ActingPass]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return λ-returns and values (T, N), and the prepared observations (T + 1, N, …)."""
        drawn = self._targets_draw(drawn)
        acted = self.noise is None or self._target_draw == "acted"
        prepared = self._prepared(rollout, passes)
        value = torch.empty(rollout.first.shape, device=self.device)
        known = len(passes) if acted else 0
        for t, one in enumerate(passes[:known]):
            value[t] = one.value
        steps = max(_ROWS // rollout.first.shape[1], 1)
        with (
            torch.no_grad(),
            autocast_for(self.precision, self.device),
            noise_inside(self.network, drawn),
        ):
            for start in range(known, len(value), steps):
                part = slice(start, start + steps)
                value[part] = self.network(prepared[part]).amax(-1)
        target_t = losses.lambda_return(
            self._tensor(rollout.reward_t),
            self._tensor(rollout.discount_t),
            self._return_lambda * self._tensor(rollout.goes_on_t),
            value,
        )
        return target_t, value[:-1], prepared

    def _targets_draw(self, acted: Draw | None) -> Draw | None:
        """Return the draw that makes the targets; None: the mean weights do."""
        if acted is None or self._target_draw == "means":
            return None
        if self._target_draw == "acted":
            return acted
        return draw(self.network, rows=acted.rows, generator=self._learning)

    def _prepared(self, rollout: Rollout, passes: Sequence[ActingPass]) -> Tensor:
        """Return a rollout's observations (T + 1, N, …) as the torso takes them."""
        steps = [one.prepared for one in passes]
        with torch.no_grad(), autocast_for(self.precision, self.device):
            steps += [
                self.network.torso.prepare(self._tensor(observation))
                for observation in rollout.observation[len(steps) :]
            ]
        return torch.stack(steps)

    # Saving

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return everything that goes on changing, a rollout that is being learned from too."""
        arrays, plain = super().state()
        plain["shuffling"] = self._shuffling.bit_generator.state
        if self._rollout is not None:
            plain["rollout"] = self._rollout.state()
            arrays.update(self._rollout.arrays())
        return arrays, plain

    def restore(self, arrays: Mapping[str, np.ndarray], plain: Mapping[str, Any]) -> None:
        """Take over what `state` returned. Raises KeyError or RuntimeError for a misfit."""
        super().restore(arrays, plain)
        self._static_forward = None  # a graph reads the draw where it was before
        self._shuffling.bit_generator.state = dict(plain["shuffling"])
        self._rollout = None
        saved = plain.get("rollout")
        if saved is not None:
            self._rollout = PreparedRollout.restored(
                arrays,
                saved,
                prepare=lambda rollout: self._prepared(rollout, ()),
                acting=None if self.noise is None else held(self.network),
                minibatches=self.minibatches,
                device=self.device,
            )
