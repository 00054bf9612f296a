"""What the processes of an asynchronous run share, without a lock, and what they tell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..agents import ActorCritic, RolloutLearned
from ..agents.optimizers import build_optimizer
from ..envs import FinishedEpisode
from ..networks import ActorCriticNetwork
from ..runs.config import Config
from ..runs.sections import SEEDS


@dataclass(frozen=True)
class Shared:
    """Hold tensors in shared memory. Nothing here is ever locked, so no death can block anyone.

    Parameters and the optimizer's statistics are written by all workers at once, Hogwild
    (arXiv 1106.5730; shared RMSProp: arXiv 1602.01783, §4): some additions are lost, and a read may
    see half of an update. Each row of `progress` has one writer, and `stopping` only the parent.
    """

    parameters: list[Tensor]
    optimizer: list[dict[str, Tensor]]
    """The optimizer's statistics, parameter by parameter."""
    frames: list[Tensor]
    """What the torso knows of the game's frames; it does not change."""
    progress: Tensor
    """(workers, 2), int64: agent steps and updates of this session."""
    stopping: Tensor
    """(1,), bool: the workers are to end."""
    steps_before: int
    """Agent steps of the run before this session."""

    @staticmethod
    def of(agent: ActorCritic, steps_before: int) -> Shared:
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
            progress=torch.zeros(
                agent.config.actor_critic.workers, 2, dtype=torch.int64
            ).share_memory_(),
            stopping=torch.zeros(1, dtype=torch.bool).share_memory_(),
            steps_before=steps_before,
        )

    @property
    def step(self) -> int:
        """Agent steps of the run so far, over all workers."""
        return self.steps_before + int(self.progress[:, 0].sum())

    @property
    def updates(self) -> int:
        """Updates of this session, over all workers."""
        return int(self.progress[:, 1].sum())

    def ends(self, config: Config) -> bool:
        """Tell whether workers are to end: they were asked to, or the budget is used."""
        return bool(self.stopping) or self.step >= config.training.steps

    def copy_to(self, network: ActorCriticNetwork) -> None:
        """Copy the parameters, as they now stand, and the frames into a worker's own network."""
        with torch.no_grad():
            for own, shared in zip(network.parameters(), self.parameters, strict=True):
                own.copy_(shared)
            for own, shared in zip(network.torso.buffers(), self.frames, strict=True):
                own.copy_(shared)


class SharedOptimizer:
    """Apply a worker's gradients to the shared parameters, with the shared statistics."""

    def __init__(self, shared: Shared, config: Config) -> None:
        """Build an optimizer whose every tensor lies in shared memory."""
        self._parameters = [nn.Parameter(tensor) for tensor in shared.parameters]
        self._optimizer = build_optimizer(self._parameters, config.learning)
        for parameter, statistics in zip(self._parameters, shared.optimizer, strict=True):
            self._optimizer.state[parameter] = dict(statistics)

    def step(self, gradients: Iterable[Tensor | None], learning_rate: float) -> None:
        """Take one step."""
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()


def _begin_statistics(optimizer: torch.optim.Optimizer) -> None:
    """Make the statistics exist, which an optimizer does at its first step only."""
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
class Assignment:
    """Say which worker a process is."""

    config: Config
    observation_shape: tuple[int, ...]
    actions: int
    number: int
    """From 0."""
    life: int
    """How many processes had this number before, in this session."""

    def own_config(self, steps_before: int) -> Config:
        """Give the config with this worker's seed and share of the threads.

        Seeds differ between workers, between a process and the one that replaces it, and between
        a run and its resumption, so that no game and no noise is played twice.
        """
        training = self.config.training
        seed = training.stream(f"worker {self.number}.{self.life} from {steps_before}") % SEEDS
        threads = threads_each(training.threads, self.config.actor_critic.workers)
        return self.config.replaced(seed=seed, threads=threads)


def threads_each(threads: int, workers: int) -> int:
    """Give the threads of one worker, of those that the run has."""
    return max(threads // workers, 1)


@dataclass(frozen=True)
class WorkerGame:
    """Tell that a worker's game ended."""

    game: FinishedEpisode


@dataclass(frozen=True)
class WorkerLearned:
    """Tell the figures of a worker's last updates, and of its noise by their tags."""

    learned: list[RolloutLearned]
    noise: dict[str, float]


@dataclass(frozen=True)
class WorkerFailed:
    """Tell why a worker ends; `diverged` where a loss became NaN or infinite."""

    reason: str
    diverged: bool


Message = WorkerGame | WorkerLearned | WorkerFailed
