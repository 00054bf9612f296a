"""Updates on minibatches in fixed buffers, which a GPU can run as one CUDA graph.

The arithmetic and the order of every draw are those of `ParallelQLearning.update`, except that all
minibatches have the length of the longest. Shorter ones are padded with steps of weight 0, so means
may differ in their last bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..layers import Draw
from .device_updates import DeviceUpdates
from .parallel_q import ParallelQLearning, ValuesLearned
from .prepared_rollout import Minibatch, PreparedRollout


@dataclass
class _Buffers:
    """A rollout on the device: T steps of N environments, in M minibatches of at most B steps."""

    observation: Tensor
    """((T + 1) N, …)."""
    action: Tensor
    """(T N,)."""
    target: Tensor
    """(T N,)."""
    acted: Draw | None
    """The draw that acted; None: no layer is noisy."""
    index: Tensor
    """(M, B): indices of the steps of each minibatch."""
    weight: Tensor
    """(M, B): weight of each step in its minibatch's mean."""
    number: Tensor
    """(1,): number of the next minibatch."""


class StaticMinibatches(DeviceUpdates[ParallelQLearning]):
    """An agent's updates on a rollout's minibatches, taken without waiting for the device.

    See `DeviceUpdates`. Rollouts are passed to the agent's `begin`, and all have the same shapes.
    From here on, the agent also chooses its actions with a graph (`act_from_graph`).
    """

    def __init__(self, agent: ParallelQLearning, step_size: float | None = None) -> None:
        """Take over the updates of an agent; to restore its state, do so before.

        `step_size` is the step size of the first update; None: the optimizer's.
        """
        super().__init__(agent, step_size, extra_figures=1)
        agent.act_from_graph()
        self._buffers: _Buffers | None = None
        self._rollout: PreparedRollout | None = None

    def update(self, step_size: float | None = None) -> None:
        """Take one optimisation step, on the next minibatch of the agent's rollout.

        `step_size` replaces the last one. Figures are read only now and then, and LossNotFinite is
        raised then, as by `learned`. Raises RuntimeError if the agent was restored after this
        object was made.
        """
        current = self._agent.current
        if current is not self._rollout:
            self._take(current)
        self._run(step_size)
        self._agent.go_on()

    def learned(self) -> list[ValuesLearned]:
        """Return the result of each update since the last call; wait for the device.

        Raises LossNotFinite, which names the first update whose loss or gradient was NaN or
        infinite. The parameters are as they were before it; later updates were withheld.
        """
        return [ValuesLearned(loss, q) for loss, _, q in self._figures()]

    def _take(self, current: PreparedRollout) -> None:
        """Copy a rollout into the buffers."""
        own, device = self._buffers, self._agent.device
        minibatches = len(current.order) * current.minibatches
        if (
            own is None
            or len(own.target) != current.target_t.numel()
            or own.index.shape[1] != current.longest
            or len(own.index) < minibatches
        ):
            # The first rollout, or the first after one that was begun with other settings.
            own = self._buffers = self._empty(current)
            self._new_graph()
        index, weight = np.zeros(own.index.shape, np.int64), np.zeros(own.weight.shape, np.float32)
        for number, steps in enumerate(current.every_minibatch()):
            index[number, : len(steps)], weight[number, : len(steps)] = steps, 1 / len(steps)
        own.observation.copy_(current.prepared.flatten(0, 1))
        own.target.copy_(current.target_t.flatten())
        if own.acted is not None:
            assert current.drawn is not None, "every rollout of an agent with noise has a draw"
            for flat, drawn in zip(own.acted.flats, current.drawn.flats, strict=True):
                flat.copy_(drawn)
        for kept, array in (
            (own.action, current.rollout.action_t.reshape(-1)),
            (own.index, index),
            (own.weight, weight),
            (own.number, np.array([current.done])),
        ):
            value = torch.from_numpy(array)
            kept.copy_(value.pin_memory() if device.type == "cuda" else value, non_blocking=True)
        self._rollout = current

    def _empty(self, current: PreparedRollout) -> _Buffers:
        steps, longest, device = current.target_t.numel(), current.longest, self._agent.device
        minibatches = len(current.order) * max(current.minibatches, self._agent.minibatches)
        return _Buffers(
            observation=torch.empty_like(current.prepared.flatten(0, 1)),
            action=torch.empty(steps, dtype=torch.int64, device=device),
            target=torch.empty(steps, device=device),
            acted=None if current.drawn is None else current.drawn.clone(),
            index=torch.empty(minibatches, longest, dtype=torch.int64, device=device),
            weight=torch.empty(minibatches, longest, device=device),
            number=torch.empty(1, dtype=torch.int64, device=device),
        )

    def _loss(self) -> tuple[Tensor, Sequence[Tensor]]:
        own = self._buffers
        assert own is not None, "work begins with a rollout"
        index = own.index.index_select(0, own.number).squeeze(0)
        minibatch = Minibatch(
            observation=own.observation.index_select(0, index),
            action=own.action.index_select(0, index),
            target=own.target.index_select(0, index),
            acted=self._agent.acted_in(index, own.acted),
            weight=own.weight.index_select(0, own.number).squeeze(0),
        )
        own.number.add_(1)
        loss, q = self._agent.loss_and_q(minibatch)
        return loss, (q,)
