"""The base of the value-based agents: a Q-network, and how it acts and explores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..control import PenaltyWeight, sigma_penalty
from ..layers.outputs import Outputs
from ..networks import QNetwork
from ..runs.seeds import stream
from .base import BaseAgent
from .exploration import LinearEpsilon, Redraw, epsilon_greedy
from .noise_control import DRAWS, Control, Observations
from .noise_metrics import q_behaviour, q_outputs, unit_figures
from .optimizers import autocast_for, backward_and_clip, set_step_size
from .revival import ROWS, Revival


class ValueAgent(BaseAgent[QNetwork]):
    """An agent that acts by Q-values, and explores by learned noise, ε-greedy, or both.

    Each source of randomness has its own generator, seeded from `seed`: `acting` for the held
    draws, `learning` for the draws of updates, `actions` for uniformly random actions.

    The arguments are those of the agents; `acting_precision` is that of the matrix products of
    choosing an action.
    """

    def __init__(
        self,
        network: QNetwork,
        optimizer: torch.optim.Optimizer,
        *,
        actions: int,
        environments: int,
        max_gradient_norm: float | None,
        redraw: Redraw,
        draw_per_environment: bool,
        epsilon: LinearEpsilon | None,
        control: Control | None,
        penalty: PenaltyWeight | None,
        warmup_steps: int = 0,
        precision: Literal["float32", "bfloat16"],
        acting_precision: Literal["float32", "bfloat16"] = "float32",
        revival: Revival | None,
        seed: int,
    ) -> None:
        super().__init__(
            network,
            optimizer,
            actions=actions,
            environments=environments,
            max_gradient_norm=max_gradient_norm,
            redraw=redraw,
            draw_per_environment=draw_per_environment,
            control=control,
            precision=precision,
            revival=revival,
            seed=seed,
        )
        self.epsilon = epsilon
        self.warmup_steps = warmup_steps
        self._acting_precision = acting_precision
        self._learning = torch.Generator(self.device).manual_seed(stream(seed, "learning"))
        self._generators["learning"] = self._learning
        self._action_generator = np.random.Generator(np.random.PCG64(stream(seed, "actions")))
        self._penalty = penalty
        # A tensor, because a CUDA graph does not see changes of a Python number.
        self._penalty_weight = torch.zeros((), device=self.device)

    def act(self, observation: np.ndarray, step: int, first: np.ndarray) -> np.ndarray:
        """Choose an action for each environment, (N, …) to (N,), exploring as configured.

        `first` (N,) is true where the observation is an episode's first.
        """
        count = len(observation)
        if self.control is not None:
            self.control.see(observation)
            self.control.move(step)
        if step < self.warmup_steps:
            return self._action_generator.integers(self.actions, size=count)
        if self.noise is not None:
            self.noise.before_action(first, self.updates)
        greedy = self._acted(observation)
        if self.epsilon is None:
            return greedy
        return epsilon_greedy(greedy, self.actions, self.epsilon(step), self._action_generator)

    def _acted(self, observation: np.ndarray) -> np.ndarray:
        """Choose the actions that are not uniformly random, (N, …) to (N,)."""
        return self.greedy(observation)

    def greedy(self, observation: np.ndarray) -> np.ndarray:
        """Choose argmax Q under the current noise, (N, …) to (N,).

        The last layer always computes in the precision of its weights: in bfloat16, the values of
        good actions are often equal.
        """
        with torch.inference_mode(), autocast_for(self._acting_precision, self.device):
            q = self.network(self._tensor(observation))
            return q.argmax(-1).cpu().numpy()

    def _take_step(self, loss: Tensor, step_size: float | None) -> float:
        """Take one optimisation step, and redraw noise that is redrawn by updates; return the loss.

        `step_size` replaces the optimizer's. Raises LossNotFinite, and leaves the parameters
        unchanged, if the loss or its gradient is NaN or infinite.
        """
        value = backward_and_clip(
            loss, self.optimizer, max_norm=self.max_gradient_norm, update=self.updates + 1
        )
        if step_size is not None:
            set_step_size(self.optimizer, step_size)
        self.optimizer.step()
        self.updates += 1
        if self.noise is not None:
            self.noise.after_update()
        return value

    def set_penalty_weight(self, mean_return: float | None) -> None:
        """Set the penalty's weight by the mean return of the last games; None: no game yet."""
        if self._penalty is not None:
            self._penalty_weight.fill_(self._penalty(mean_return))

    def _with_penalty(self, loss: Tensor) -> Tensor:
        """Return loss + k D, where D is the mean |σ| of the output layers (arXiv 2006.10980)."""
        if self._penalty is None:
            return loss
        return loss + self._penalty_weight * sigma_penalty(*self.network.output_layers())

    def _outputs(self, seen: Observations, generator: torch.Generator) -> Outputs:
        return q_outputs(self.network, self._tensor(seen[0]), generator, draws=DRAWS)

    @property
    def must_revive(self) -> bool:
        """Whether a cure is due after this update."""
        return self.revival is not None and self.revival.is_due(self.updates)

    def revive(self, observation: np.ndarray | Tensor) -> None:
        """Apply the cures that are due after this update.

        Dormant units are found on the first 256 of the observations (B, …). After shrinking or a
        reset, a target network is copied again.
        """
        revival = self.revival
        assert revival is not None, "only an agent with cures must revive"
        shown = torch.as_tensor(observation[:ROWS]).to(self.device)
        self._apply_cures(revival, shown, self.updates)
        if revival.needs_target_copy(self.updates):
            self.copy_to_target()

    def copy_to_target(self) -> None:
        """Copy the network's parameters into a target network, if there is one."""

    def behaviour(self, observation: np.ndarray, first: np.ndarray) -> dict[str, float]:  # noqa: ARG002 - as of all agents
        """Return figures of the noise's effect on the greedy actions, and of the units.

        The observations are (N, …). The draws are seeded by the number of updates, so no other
        random numbers change.
        """
        generator = self._generator_for_figures()
        shown = self._tensor(observation)
        noise = {} if self.noise is None else q_behaviour(self.network, shown, generator)
        return noise | unit_figures(self.network, shown, generator)

    # Saving

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return the agent's state, as arrays and as plain JSON values."""
        arrays, plain = super().state()
        return arrays, {**plain, "action_generator": self._action_generator.bit_generator.state}

    def restore(self, arrays: Mapping[str, np.ndarray], plain: Mapping[str, Any]) -> None:
        """Restore what `state` returned. Raises KeyError or RuntimeError if it does not fit."""
        super().restore(arrays, plain)
        self._action_generator.bit_generator.state = dict(plain["action_generator"])
