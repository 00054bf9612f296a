"""Updates from buffers that stay where they are: what a GPU runs as one CUDA graph.

The arithmetic, and the order of every draw, are those of `QLearning.update`. What differs is who
waits for whom: losses and norms are kept on the device and read when they are asked for, and an
update whose loss or gradient is not finite is not prevented by the host but withheld on the device.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from ..layers import held, hold
from ..replay import Batch
from .device_graph import DeviceGraph
from .optimizers import LossNotFinite
from .q_learning import AnyBatch, QLearning

_FIELDS = ("observation_tm1", "action_tm1", "return_t", "discount_t", "observation_t", "weights")
_KEPT = 1024
"""Losses that are kept on the device at most before they are read."""


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


class StaticUpdates:
    """An agent's updates, taken without waiting for the device.

    The agent's acting draw is held at a fixed address from here on, and its optimizer reads its
    step size from a tensor. On the CPU the results are those of `QLearning.update`, bit for bit.
    """

    def __init__(self, agent: QLearning, step_size: float | None = None) -> None:
        """Take an agent whose state has been restored, if it is to be.

        `step_size` is that of the first update; None: the optimizer's.
        """
        self._agent = agent
        self._batch: Batch[Tensor] | None = None
        device = agent.device
        # The CPU's Adam reads a double, as from a plain number; the GPU's a float.
        of_steps = torch.float32 if device.type == "cuda" else torch.float64
        # A tensor, where another one was made for this agent before.
        self._size_set = (
            float(agent.optimizer.param_groups[0]["lr"]) if step_size is None else step_size
        )
        self._step_size = torch.tensor(self._size_set, dtype=of_steps, device=device)
        self._told = torch.zeros(_KEPT, 2, device=device)  # loss and norm of each update
        self._place = torch.zeros(1, dtype=torch.int64, device=device)
        self._untold = 0
        self._read: list[float] = []
        self._errors: Tensor | None = None
        self._withheld = torch.zeros((), device=device)
        self._prepare_optimizer()
        if agent.noise is not None:
            hold(agent.online, drawn=held(agent.online), static=True)
        self._graph = DeviceGraph(
            self._work, device, generators=agent.generators, before_capture=self._allow_capture
        )

    def _prepare_optimizer(self) -> None:
        optimizer = self._agent.optimizer
        for group in optimizer.param_groups:
            group["lr"] = self._step_size
        # Fused Adam leaves everything as it is where this is 1, as mixed precision asks of it.
        self._withholds = isinstance(optimizer, torch.optim.Adam)
        if self._withholds:
            optimizer.found_inf = self._withheld  # pyright: ignore[reportAttributeAccessIssue]

    def _allow_capture(self) -> None:
        optimizer = self._agent.optimizer
        for group in optimizer.param_groups:
            group["capturable"] = True
        for state in optimizer.state.values():
            state["step"] = state["step"].to(self._agent.device)

    def update(self, batch: AnyBatch, step_size: float | None = None) -> None:
        """Take one optimisation step, and let the acting noise be redrawn.

        `step_size` replaces the one before. Raises LossNotFinite as `losses` does, now and then,
        and RuntimeError where the agent was restored since this was made.
        """
        if self._agent.optimizer.param_groups[0]["lr"] is not self._step_size:
            raise RuntimeError(
                "agent: it was restored after its StaticUpdates were made, which keep what it was: "
                "make them anew"
            )
        if self._batch is None:
            self._batch = _kept(batch, self._agent.device)
        else:
            _fill(self._batch, batch)
        if self._untold == _KEPT:
            self._tell()
        if step_size is not None and step_size != self._size_set:
            self._step_size.fill_(step_size)
            self._size_set = step_size
        self._graph.run()
        self._untold += 1
        self._agent.updates += 1
        if self._agent.must_revive:
            # Beside the graph, and only where all updates before were finite.
            self._tell()
            self._agent.revive(self._batch.observation_tm1)

    def _work(self) -> None:
        """Do what `QLearning.update` does, and note what it would have looked at."""
        agent, optimizer = self._agent, self._agent.optimizer
        assert self._batch is not None, "work begins with a batch"
        loss, errors = agent.loss_and_errors(self._batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        limit = agent.max_gradient_norm
        norm = nn.utils.clip_grad_norm_(
            agent.online.parameters(), math.inf if limit is None else limit, foreach=True
        )
        told = torch.stack([loss.detach(), norm.detach()])
        self._told.index_copy_(0, self._place, told.unsqueeze(0))
        self._place.add_(1)
        self._withheld.copy_(torch.maximum(self._withheld, (~told.isfinite()).any().float()))
        if not self._withholds:
            self._silence_gradient()
        optimizer.step()
        if agent.noise is not None:
            agent.noise.after_update()
        if self._errors is None:
            self._errors = torch.empty_like(errors)
        self._errors.copy_(errors)

    def _silence_gradient(self) -> None:
        """Let RMSProp stand still where it is to; it has no momentum to go on by."""
        for parameter in self._agent.online.parameters():
            if parameter.grad is not None:
                parameter.grad = parameter.grad.masked_fill_(self._withheld.bool(), 0)

    def errors(self) -> np.ndarray:
        """Return each transition's error in the last update, (B,); waits for the device."""
        assert self._errors is not None, "errors are asked for after an update"
        return self._errors.cpu().numpy()

    def losses(self) -> list[float]:
        """Return the losses of the updates since this was last asked; waits for the device.

        Raises LossNotFinite, naming the first update whose loss or gradient was NaN or infinite.
        The parameters are as before it, and nothing was learned since.
        """
        self._tell()
        losses, self._read = self._read, []
        return losses

    def _tell(self) -> None:
        """Read what stands on the device, and begin again there."""
        if not self._untold:
            return
        told = self._told[: self._untold].tolist()
        first = self._agent.updates - self._untold + 1
        self._place.zero_()
        self._untold = 0
        for update, (loss, norm) in enumerate(told, start=first):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self._agent.updates = update - 1
                what, got = ("loss's gradient", norm) if math.isfinite(loss) else ("loss", loss)
                raise LossNotFinite(f"the {what} became {got} at update {update}")
            self._read.append(loss)
