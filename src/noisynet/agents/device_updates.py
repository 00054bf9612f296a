"""Updates that do not wait for the device: step sizes, checks and figures are kept on it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from ..layers import held, hold
from .device_graph import DeviceGraph
from .optimizers import LossNotFinite
from .parallel_q import ParallelQLearning
from .q_learning import QLearning

AgentT = TypeVar("AgentT", QLearning, ParallelQLearning)
_KEPT = 1024
"""The largest number of updates whose figures are kept on the device before they are read."""


class DeviceUpdates(ABC, Generic[AgentT]):
    """An agent's updates, taken without waiting for the device.

    From here on, the agent's acting draw is held at a fixed address, and its optimizer reads the
    step size from a tensor.
    """

    def __init__(self, agent: AgentT, step_size: float | None, *, extra_figures: int) -> None:
        """Take over the updates of an agent; to restore its state, do so before.

        `step_size` is the step size of the first update; None: the optimizer's. `extra_figures` is
        the number of figures that `_loss` returns beside the loss.
        """
        self._agent = agent
        device = agent.device
        # On the CPU, Adam reads a double, as it would from a plain number; on the GPU, a float.
        of_steps = torch.float32 if device.type == "cuda" else torch.float64
        # The optimizer's step size is a tensor if the agent had such updates before.
        self._size_set = (
            float(agent.optimizer.param_groups[0]["lr"]) if step_size is None else step_size
        )
        self._step_size = torch.tensor(self._size_set, dtype=of_steps, device=device)
        self._size_in_force = self._step_size.clone()
        # Of each update the loss, the gradient's norm, and the other figures.
        self._record = torch.zeros(_KEPT, 2 + extra_figures, device=device)
        self._place = torch.zeros(1, dtype=torch.int64, device=device)
        self._unread = 0
        self._read_figures: list[list[float]] = []
        self._withheld = torch.zeros((), device=device)
        self._prepare_optimizer()
        if agent.noise is not None:
            hold(agent.network, drawn=held(agent.network), static=True)
        self._new_graph()

    def _new_graph(self) -> None:
        """Start a new graph, to be captured again: the tensors that updates read have moved."""
        self._graph = DeviceGraph(
            self._work,
            self._agent.device,
            generators=self._agent.generators,
            before_capture=self._allow_capture,
        )

    def _prepare_optimizer(self) -> None:
        optimizer = self._agent.optimizer
        for group in optimizer.param_groups:
            group["lr"] = self._size_in_force
        # Fused Adam skips its step where this is 1, a feature made for mixed precision.
        self._withholds = isinstance(optimizer, torch.optim.Adam)
        if self._withholds:
            optimizer.found_inf = self._withheld  # pyright: ignore[reportAttributeAccessIssue]

    def _allow_capture(self) -> None:
        optimizer = self._agent.optimizer
        for group in optimizer.param_groups:
            group["capturable"] = True
        for state in optimizer.state.values():
            state["step"] = state["step"].to(self._agent.device)

    @abstractmethod
    def _loss(self) -> tuple[Tensor, Sequence[Tensor]]:
        """Return the loss of the current update, and the other figures to report."""

    def _run(self, step_size: float | None) -> None:
        """Take and count one optimisation step, with the given step size or else the last one.

        Raises LossNotFinite as `_read_record` does, and RuntimeError if the agent was restored.
        """
        self._check_agent()
        if self._unread == _KEPT:
            self._read_record()
        if step_size is not None and step_size != self._size_set:
            self._step_size.fill_(step_size)
            self._size_set = step_size
        self._graph.run()
        self._unread += 1
        self._agent.updates += 1
        if self._agent.must_revive:
            # Cures run outside the graph, and only if all previous updates were finite.
            self._read_record()

    def _check_agent(self) -> None:
        if self._agent.optimizer.param_groups[0]["lr"] is not self._size_in_force:
            raise RuntimeError(
                f"agent: it was restored after its {type(self).__name__} were made, which keep "
                "what it was: make them anew"
            )

    def _work(self) -> None:
        """Do the work of the agent's `update`, and record on the device what it would check."""
        agent, optimizer = self._agent, self._agent.optimizer
        loss, beside = self._loss()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        limit = agent.max_gradient_norm
        norm = nn.utils.clip_grad_norm_(
            agent.network.parameters(), math.inf if limit is None else limit, foreach=True
        )
        figures = torch.stack([loss.detach(), norm.detach(), *beside])
        self._record.index_copy_(0, self._place, figures.unsqueeze(0))
        self._place.add_(1)
        failed = (~figures[:2].isfinite()).any().float()  # exactly what `_read_record` raises for
        self._withheld.copy_(torch.maximum(self._withheld, failed))
        self._size_in_force.copy_(self._step_size)
        if not self._withholds:
            self._withhold_step()
        optimizer.step()
        if agent.noise is not None:
            agent.noise.after_update()

    def _withhold_step(self) -> None:
        """Keep an optimizer without `found_inf` from moving the parameters after a failed update.

        Without a gradient, momentum would still move them, so the step size is set to 0 too.
        """
        withheld = self._withheld.bool()
        self._size_in_force.masked_fill_(withheld, 0)
        for parameter in self._agent.network.parameters():
            if parameter.grad is not None:
                parameter.grad = parameter.grad.masked_fill_(withheld, 0)

    def _read_record(self) -> None:
        """Read the figures recorded on the device, and start a new record there.

        Raises LossNotFinite, which names the first update whose loss or gradient was NaN or
        infinite. The parameters are as they were before it; later updates were withheld.
        """
        if not self._unread:
            return
        record = self._record[: self._unread].tolist()
        first = self._agent.updates - self._unread + 1
        self._place.zero_()
        self._unread = 0
        for update, figures in enumerate(record, start=first):
            loss, norm, *_ = figures
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self._agent.updates = update - 1
                self._withheld.zero_()  # whoever goes on all the same learns again
                what, got = ("loss's gradient", norm) if math.isfinite(loss) else ("loss", loss)
                raise LossNotFinite(f"the {what} became {got} at update {update}")
            self._read_figures.append(figures)

    def _figures(self) -> list[list[float]]:
        """Return loss, gradient norm and other figures of each update since the last call.

        Waits for the device. Raises LossNotFinite as `_read_record` does.
        """
        self._read_record()
        figures, self._read_figures = self._read_figures, []
        return figures
