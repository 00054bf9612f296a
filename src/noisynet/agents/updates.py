"""How a loop has an agent take its updates: one after the other, or from buffers that stay."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from .q_learning import QLearning
from .static_updates import StaticUpdates
from .tensor_transitions import TensorTransitions
from .transitions import Transitions


class Updates(Protocol):
    """Take an agent's updates, and tell of them when asked."""

    def update(self, batch: Transitions | TensorTransitions) -> None:
        """Take one optimisation step, and let the acting noise be redrawn.

        Raises LossNotFinite, here or from `losses`, where loss or gradient is NaN or infinite; the
        parameters are then as before that update.
        """
        ...

    def errors(self) -> np.ndarray:
        """Give each transition's error in the last update, (B,); waits for the device."""
        ...

    def losses(self) -> list[float]:
        """Give the losses of the updates since this was last asked; waits for the device."""
        ...


class PlainUpdates:
    """Take each update by `QLearning.update`, which waits for its loss."""

    def __init__(self, agent: QLearning) -> None:
        """Take the agent."""
        self._agent = agent
        self._losses: list[float] = []
        self._errors = np.empty(0, np.float32)

    def update(self, batch: Transitions | TensorTransitions) -> None:
        """Take one optimisation step."""
        learned = self._agent.update(batch)
        self._losses.append(learned.loss)
        self._errors = learned.errors

    def errors(self) -> np.ndarray:
        """Give each transition's error in the last update, (B,)."""
        return self._errors

    def losses(self) -> list[float]:
        """Give the losses of the updates since this was last asked."""
        losses, self._losses = self._losses, []
        return losses


def updates_of(agent: QLearning) -> Updates:
    """Give an agent's updates as its config says; its state must have been restored before."""
    graph = agent.config.training.execution == "graph"
    return StaticUpdates(agent) if graph else PlainUpdates(agent)
