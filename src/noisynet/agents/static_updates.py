"""Updates from buffers that stay where they are: what a GPU runs as one CUDA graph.

The arithmetic, and the order of every draw, are those of `QLearning.update`. What differs is who
waits for whom: losses and norms are kept on the device and read when they are asked for, and an
update whose loss or gradient is not finite is not prevented by the host but withheld on the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..replay import Batch
from .device_updates import DeviceUpdates
from .q_learning import AnyBatch, QLearning

_FIELDS = ("observation_tm1", "action_tm1", "return_t", "discount_t", "observation_t", "weights")


def _fill(own: Batch[Tensor], batch: AnyBatch) -> None:
    """Copy a batch of the same sizes into tensors that stay; raises ValueError for other ones.

    A tensor that is its own source is left alone: the device's replay fills its batch in place.
    """
    for name in _FIELDS:
        value, kept = getattr(batch, name), getattr(own, name)
        if value is kept:
            continue
        if value is None or kept is None or value.shape != kept.shape:
            sizes = [None if one is None else tuple(one.shape) for one in (value, kept)]
            raise ValueError(f"{name}: got shape {sizes[0]}, expected {sizes[1]} as before")
        if not isinstance(value, Tensor):
            value = torch.from_numpy(value)
            if kept.is_cuda:
                value = value.pin_memory()
        kept.copy_(value, non_blocking=True)


def _kept(batch: AnyBatch, device: torch.device) -> Batch[Tensor]:
    """Return the batch in tensors that stay: its own, where they are tensors already."""

    def own(value: np.ndarray | Tensor) -> Tensor:
        if isinstance(value, Tensor):
            return value
        return torch.from_numpy(value).to(device, copy=True)

    return Batch(
        observation_tm1=own(batch.observation_tm1),
        action_tm1=own(batch.action_tm1),
        return_t=own(batch.return_t),
        discount_t=own(batch.discount_t),
        observation_t=own(batch.observation_t),
        weights=None if batch.weights is None else own(batch.weights),
    )


class StaticUpdates(DeviceUpdates[QLearning]):
    """An agent's updates on batches, taken without waiting for the device.

    See `DeviceUpdates`. On the CPU the results are those of `QLearning.update`, bit for bit.
    """

    def __init__(self, agent: QLearning, step_size: float | None = None) -> None:
        """Take an agent whose state has been restored, if it is to be.

        `step_size` is that of the first update; None: the optimizer's.
        """
        super().__init__(agent, step_size, told=0)
        self._batch: Batch[Tensor] | None = None
        self._errors: Tensor | None = None

    def update(self, batch: AnyBatch, step_size: float | None = None) -> None:
        """Take one optimisation step, and let the acting noise be redrawn.

        `step_size` replaces the one before. Raises LossNotFinite as `losses` does, now and then,
        and RuntimeError where the agent was restored since this was made.
        """
        if self._batch is None:
            self._batch = _kept(batch, self._agent.device)
        else:
            _fill(self._batch, batch)
        self._run(step_size)
        self._agent.updates += 1
        if self._agent.must_revive:
            # Beside the graph, and only where all updates before were finite.
            self._tell()
            self._agent.revive(self._batch.observation_tm1)

    def _loss(self) -> tuple[Tensor, Sequence[Tensor]]:
        assert self._batch is not None, "work begins with a batch"
        loss, errors = self._agent.loss_and_errors(self._batch)
        if self._errors is None:
            self._errors = torch.empty_like(errors)
        self._errors.copy_(errors)
        return loss, ()

    def errors(self) -> np.ndarray:
        """Return each transition's error in the last update, (B,); waits for the device."""
        assert self._errors is not None, "errors are asked for after an update"
        return self._errors.cpu().numpy()

    def losses(self) -> list[float]:
        """Return the losses of the updates since this was last asked; waits for the device.

        Raises LossNotFinite, naming the first update whose loss or gradient was NaN or infinite.
        The parameters are as before it, and nothing was learned since.
        """
        return [loss for loss, *_ in self._figures()]
