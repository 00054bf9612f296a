"""The memory that the processes of an asynchronous run share, and the workers' messages."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...agents import ActorCritic, RolloutLearned
from ...agents.optimizers import set_step_size
from ...envs import FinishedEpisode
from ...networks import ActorCriticNetwork


@dataclass(frozen=True)
class Shared:
    """The tensors in shared memory. They are never locked, so a worker's death blocks nobody.

    Parameters and the optimizer's statistics are written by all workers at once, Hogwild
    (arXiv 1106.5730; shared RMSProp: arXiv 1602.01783, §4): some additions are lost, and a read may
    see half of an update. Each row of `progress` has one writer, and `stopping` only the parent.
    """

    parameters: list[Tensor]
    optimizer: list[dict[str, Tensor]]
    """The optimizer's statistics, parameter by parameter."""
    frames: list[Tensor]
    """The torso's buffers: statistics of the game's frames, which do not change."""
    progress: Tensor
    """(workers, 2), int64: agent steps and updates of this session."""
    stopping: Tensor
    """(1,), bool: whether the parent has asked the workers to end."""
    steps_before: int
    """Agent steps of the run before this session."""
    steps: int
    """Agent steps after which the run ends."""

    @staticmethod
    def of(agent: ActorCritic, *, workers: int, steps_before: int, steps: int) -> Shared:
        """Move an agent's parameters and statistics into shared memory, where it then uses them."""
        agent.network.share_memory()
        _begin_statistics(agent.optimizer)
        parameters = list(agent.network.parameters())
        statistics = [dict(agent.optimizer.state[parameter]) for parameter in parameters]
        for one in statistics:
            for tensor in one.values():
                tensor.share_memory_()
        return Shared(
            parameters=[parameter.detach() for parameter in parameters],
            optimizer=statistics,
            frames=list(agent.network.torso.buffers()),
            progress=torch.zeros(workers, 2, dtype=torch.int64).share_memory_(),
            stopping=torch.zeros(1, dtype=torch.bool).share_memory_(),
            steps_before=steps_before,
            steps=steps,
        )

    @property
    def step(self) -> int:
        """Agent steps of the run so far, over all workers."""
        return self.steps_before + int(self.progress[:, 0].sum())

    @property
    def updates(self) -> int:
        """Updates of this session, over all workers."""
        return int(self.progress[:, 1].sum())

    @property
    def ends(self) -> bool:
        """Whether workers must end: they were asked to, or all steps have been taken."""
        return bool(self.stopping) or self.step >= self.steps

    def copy_to(self, network: ActorCriticNetwork) -> None:
        """Copy the current parameters and the frame statistics into a worker's own network."""
        with torch.no_grad():
            for own, shared in zip(network.parameters(), self.parameters, strict=True):
                own.copy_(shared)
            for own, shared in zip(network.torso.buffers(), self.frames, strict=True):
                own.copy_(shared)


class SharedOptimizer:
    """A worker's optimizer of the shared parameters, with the shared statistics."""

    def __init__(self, shared: Shared, optimizer: torch.optim.Optimizer) -> None:
        """Copy `optimizer`, with the tensors in shared memory in place of its own."""
        self._parameters = [nn.Parameter(tensor) for tensor in shared.parameters]
        self._optimizer = copy.deepcopy(optimizer)
        self._optimizer.state.clear()
        (group,) = self._optimizer.param_groups
        group["params"] = self._parameters
        for parameter, statistics in zip(self._parameters, shared.optimizer, strict=True):
            self._optimizer.state[parameter] = dict(statistics)

    def step(self, gradients: Iterable[Tensor | None], step_size: float) -> None:
        """Take one optimisation step with a worker's gradients."""
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        set_step_size(self._optimizer, step_size)
        self._optimizer.step()


def _begin_statistics(optimizer: torch.optim.Optimizer) -> None:
    """Create an optimizer's statistics, as zeros; by itself it does so only at its first step."""
    if optimizer.state:
        return
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    before = [parameter.detach().clone() for parameter in parameters]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    with torch.no_grad():
        for parameter, value in zip(parameters, before, strict=True):
            parameter.grad = None
            parameter.copy_(value)
            for tensor in optimizer.state[parameter].values():
                tensor.zero_()


@dataclass(frozen=True, kw_only=True)
class WorkerNumber:
    """The identity of a worker process."""

    number: int
    """From 0."""
    life: int
    """How many processes had this number before it, in this session."""
    steps_before: int
    """Agent steps of the run before this session."""


@dataclass(frozen=True)
class WorkerGame:
    """A worker's message that a game ended."""

    environment: int
    """Its number among the environments of all workers."""
    game: FinishedEpisode


@dataclass(frozen=True)
class WorkerLearned:
    """A worker's message with figures: those of its last updates, and by tag those of its noise."""

    learned: list[RolloutLearned]
    noise: dict[str, float]


@dataclass(frozen=True)
class WorkerFailed:
    """A worker's message of why it ends; `diverged` is true if a loss became NaN or infinite."""

    reason: str
    diverged: bool


Message = WorkerGame | WorkerLearned | WorkerFailed
