"""Updates on batches in fixed buffers, which a GPU can run as one CUDA graph.

The arithmetic and the order of every draw are the same as in `QLearning.update`. But the host does
not wait for the device: losses and norms are kept on the device until they are asked for, and the
device, not the host, withholds an update whose loss or gradient is not finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..replay.batch import FIELDS, Batch
from .device_updates import DeviceUpdates
from .q_learning import AnyBatch, QLearning


def _fill(own: Batch[Tensor], batch: AnyBatch) -> None:
    """Copy a batch into the fixed tensors; raises ValueError if shapes differ.

    A tensor that is its own source is skipped: a replay on the device fills its batch in place.
    """
    for name in FIELDS:
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
    """Return the batch in fixed tensors on the device: its own, if they lie there already."""

    def own(value: np.ndarray | Tensor | None) -> Tensor | None:
        if value is None or (isinstance(value, Tensor) and value.device == device):
            return value
        return torch.as_tensor(value).to(device, copy=True)

    kept: dict[str, Any] = {name: own(getattr(batch, name)) for name in FIELDS}
    return Batch(**kept)


class StaticUpdates(DeviceUpdates[QLearning]):
    """An agent's updates on batches, taken without waiting for the device.

    See `DeviceUpdates`. On the CPU the results are those of `QLearning.update`, bit for bit.
    """

    def __init__(self, agent: QLearning, step_size: float | None = None) -> None:
        """Take over the updates of an agent; to restore its state, do so before.

        `step_size` is the step size of the first update; None: the optimizer's.
        """
        super().__init__(agent, step_size, extra_figures=0)
        self._batch: Batch[Tensor] | None = None
        self._errors: Tensor | None = None

    def update(self, batch: AnyBatch, step_size: float | None = None) -> None:
        """Take one optimisation step, and redraw acting noise that is redrawn by updates.

        Tensors of the first batch that lie on the agent's device are used where they lie: later
        batches are copied into them. `step_size` replaces the last one. Figures are read only now
        and then, and LossNotFinite is raised then, as by `losses`. Raises RuntimeError if the agent
        was restored after this object was made.
        """
        if self._batch is None:
            self._batch = _kept(batch, self._agent.device)
        else:
            _fill(self._batch, batch)
        self._run(step_size)
        if self._agent.must_revive:
            self._agent.revive(self._batch.observation_tm1)

    def _loss(self) -> tuple[Tensor, Sequence[Tensor]]:
        assert self._batch is not None, "work begins with a batch"
        loss, errors = self._agent.loss_and_errors(self._batch)
        if self._errors is None:
            self._errors = torch.empty_like(errors)
        self._errors.copy_(errors)
        return loss, ()

    def errors(self) -> np.ndarray:
        """Return each transition's error in the last update, (B,); wait for the device.

        Raises LossNotFinite, as `losses` does, if one of them is NaN or infinite.
        """
        assert self._errors is not None, "errors are asked for after an update"
        errors = self._errors.cpu().numpy()
        if not np.isfinite(errors).all():
            self._read_record()
        return errors

    def losses(self) -> list[float]:
        """Return the losses of the updates since the last call; wait for the device.

        Raises LossNotFinite, which names the first update whose loss or gradient was NaN or
        infinite. The parameters are as they were before it; later updates were withheld.
        """
        return [loss for loss, *_ in self._figures()]
