"""The value-based agent that learns from rollouts: PQN, Q(λ) without replay or target network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ..control import PenaltyWeight
from ..layers import Draw, draw, held
from ..networks import QNetwork, flattens_rows
from ..runs.seeds import stream
from . import losses
from .arguments import check_choice
from .exploration import LinearEpsilon, Redraw
from .noise_control import Control
from .optimizers import autocast_for
from .prepared_rollout import Minibatch, PreparedRollout
from .q_learning import noise_inside
from .revival import Revival
from .rollout import Rollout
from .static_forward import StaticForward
from .step_priorities import StepPriorities, systematic_sample
from .value_agent import ValueAgent

LearningDraw = Literal["fresh", "rows", "acted"]
"""The draw that an update learns under: a fresh one for the minibatch, a fresh one for each of its
rows, or, for each row, the one that acted."""
TargetDraw = Literal["acted", "fresh", "means"]
"""The draw under which targets are computed: the one that acted, a fresh one, or none."""
_ROWS = 256
"""Observations in a forward pass that computes targets, unless a single step has more."""


@dataclass(frozen=True)
class ValuesLearned:
    """The result of an update: means over its minibatch."""

    loss: float
    q: float
    """Q of the actions taken."""


@dataclass(frozen=True)
class ActingPass:
    """The forward pass that chose actions, kept so that learning need not repeat it."""

    prepared: Tensor
    """(N, …): the observation, prepared for the torso."""
    value: Tensor
    """(N,): max_a Q under the noise that acted."""


class ParallelQLearning(ValueAgent):
    """The value-based agent that learns from rollouts of parallel environments (arXiv 2407.04811).

    λ-returns are computed over a whole rollout, and learned in a few epochs of minibatches; layer
    norm in the network keeps learning stable without a target network. With noise, each environment
    acts under its own draw, by default held over the rollout. Raises ValueError for an unknown
    name.

    Args:
        network: Q-network, already on its device.
        optimizer: optimizer of the network's parameters.
        actions: number of actions.
        environments: number of environments that act in parallel.
        return_lambda: λ of the targets: 0 bootstraps after one step, 1 at the rollout's end.
        epochs: number of times that a rollout is learned.
        minibatches: number of minibatches per epoch.
        loss: loss of the TD error.
        priorities: steps that minibatches prefer; None: each step is learned once per epoch.
        learning_draw: see `LearningDraw`.
        target_draw: see `TargetDraw`.
        max_gradient_norm: norm to which larger gradients are scaled down; None: no clipping.
        redraw: when the acting noise is redrawn; see `Redraw`.
        draw_per_environment: False: one acting draw for all environments.
        epsilon: schedule of ε-greedy, with the noise or instead of it; None: no ε.
        control: schedule or target for the noise's scale; None: the scale is constant.
        penalty: weight, by the mean return, of the outputs' mean |σ| in the loss; None: no penalty.
        precision: "float32", or "bfloat16" for matrix products, also when acting.
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
        check_choice("loss", loss, losses.LOSSES)
        check_choice("learning_draw", learning_draw, get_args(LearningDraw))
        check_choice("target_draw", target_draw, get_args(TargetDraw))
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
        """Minibatches per epoch; a rollout with fewer steps has fewer."""
        self._loss = losses.LOSSES[loss]
        self._priorities = priorities
        self._learning_draw = learning_draw
        self._target_draw = target_draw
        self._shuffling = np.random.Generator(np.random.PCG64(stream(seed, "minibatches")))
        self._rollout: PreparedRollout | None = None
        self._static_forward: StaticForward | None = None
        self.acting_pass: ActingPass | None = None
        """The forward pass that chose the last actions."""

    def greedy(self, observation: np.ndarray) -> np.ndarray:
        """Choose argmax Q under the current noise, (N, …) to (N,); set `acting_pass`."""
        if self._static_forward is None:
            prepared, value, action = self._forward(self._tensor(observation))
        else:
            prepared, value, action = self._static_forward(observation)
        self.acting_pass = ActingPass(prepared, value)
        return action.cpu().numpy()

    def _forward(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the prepared observations (N, …), max_a Q (N,) and argmax_a Q (N,)."""
        with torch.no_grad(), autocast_for(self.precision, self.device):
            prepared = self.network.torso.prepare(observation)
            value, action = self.network(prepared).max(-1)
        return prepared, value, action

    def act_from_graph(self) -> None:
        """Choose actions with one CUDA graph from now on.

        The acting draw must keep its address, and all observations the shape of the next one.
        """
        self._static_forward = StaticForward(self._forward, self.device)

    # Learning

    def begin(self, rollout: Rollout, passes: Sequence[ActingPass] = ()) -> None:
        """Compute the targets of a new rollout, and redraw acting noise that is held over rollouts.

        `passes` are the forward passes that chose its T actions. Without them, they are repeated
        under the current weights and held draw. With samplers, this is the draw that acted last;
        it acted in the whole rollout if it is held over rollouts. Minibatches left of the previous
        rollout are dropped.
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
        """Return the indices of the steps that each epoch learns, (epochs, steps), shuffled."""
        if self._priorities is None:
            epochs = [taken] * self._epochs
        else:
            priority = self._priorities(error.cpu().numpy()[taken])
            epochs = [
                taken[systematic_sample(priority, self._shuffling)] for _ in range(self._epochs)
            ]
        return np.stack([self._shuffling.permutation(epoch) for epoch in epochs])

    def next_rollout(self) -> None:
        """Redraw the acting noise, if it is held over rollouts."""
        if self.noise is not None:
            self.noise.after_rollout()

    @property
    def updates_left(self) -> int:
        """The number of minibatches left of the current rollout."""
        return 0 if self._rollout is None else self._rollout.left

    def update(self, step_size: float | None = None) -> ValuesLearned:
        """Take one optimisation step, on the next minibatch of the rollout.

        `step_size` replaces the optimizer's. Raises LossNotFinite, and leaves the parameters
        unchanged, if the loss or its gradient is NaN or infinite.
        """
        loss, q = self.loss_and_q()
        value = self._take_step(loss, step_size)
        self.go_on()
        return ValuesLearned(value, float(q))

    def go_on(self) -> None:
        """Apply the cures that are due after an update, and proceed to the next minibatch."""
        current = self.current
        if self.must_revive:
            self.revive(current.observations())
        current.done += 1
        if not current.left:
            self._rollout = None

    @property
    def current(self) -> PreparedRollout:
        """The rollout that is being learned from. Raises ValueError if there is none."""
        if self._rollout is None:
            raise ValueError("update: got no rollout to learn from, expected `begin` before it")
        return self._rollout

    @property
    def generators(self) -> tuple[torch.Generator, ...]:
        """The generators that an update uses: for the acting draws, and for its own draws."""
        return self._acting, self._learning

    def loss_and_q(self, minibatch: Minibatch | None = None) -> tuple[Tensor, Tensor]:
        """Return the mean loss of a minibatch, and the mean Q of the actions taken.

        Without `minibatch`, use the next one of the current rollout.
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
        """Return a fresh draw to learn `steps` rows under: one for all, or one for each."""
        if self._learning_draw != "rows":
            return draw(self.network, generator=self._learning)
        # Shorter minibatches take as many rows, so that later draws do not depend on their length.
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
        """Return the draw that acted in some steps of a rollout; None if others are learned under.

        `index` (B,) holds the indices of the steps, and `drawn` the draw of all environments.
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
        if drawn is not None and drawn.rows is not None and flattens_rows(self.network.torso):
            steps = 1
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
        """Return the draw under which targets are computed; None: by the mean weights."""
        if acted is None or self._target_draw == "means":
            return None
        if self._target_draw == "acted":
            return acted
        return draw(self.network, rows=acted.rows, generator=self._learning)

    def _prepared(self, rollout: Rollout, passes: Sequence[ActingPass]) -> Tensor:
        """Return a rollout's observations (T + 1, N, …), prepared for the torso."""
        steps = [one.prepared for one in passes]
        with torch.no_grad(), autocast_for(self.precision, self.device):
            steps += [
                self.network.torso.prepare(self._tensor(observation))
                for observation in rollout.observation[len(steps) :]
            ]
        return torch.stack(steps)

    # Saving

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return the agent's state, including a rollout that is being learned from."""
        arrays, plain = super().state()
        plain["shuffling"] = self._shuffling.bit_generator.state
        if self._rollout is not None:
            plain["rollout"] = self._rollout.state()
            arrays.update(self._rollout.arrays())
        return arrays, plain

    def restore(self, arrays: Mapping[str, np.ndarray], plain: Mapping[str, Any]) -> None:
        """Restore what `state` returned. Raises KeyError or RuntimeError if it does not fit."""
        super().restore(arrays, plain)
        self._static_forward = None  # its graph reads the draw at the old address
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
