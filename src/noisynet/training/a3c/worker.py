"""One process of an asynchronous run: play, take the gradient, add it to the shared parameters."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

from ...agents import ActorCritic, LossNotFinite, RolloutLearned, StepSize
from ...envs.arguments import one_line
from ..player import Player, play_rollout
from .shared import Shared, SharedOptimizer, WorkerFailed, WorkerGame, WorkerLearned, WorkerNumber

_EXIT_FAILED = 1


@dataclass(frozen=True, kw_only=True)
class Worker:
    """The parts that a worker process plays and learns with."""

    player: Player
    agent: ActorCritic
    step_size: StepSize
    rollout_steps: int
    discount: float
    """γ, per step."""
    log_every: int
    """Updates between two reports of figures."""


MakeWorker = Callable[[WorkerNumber], Worker]
"""Builds a worker's parts in the worker's process; it is sent there, so it must be picklable."""


def work(
    make: MakeWorker, assignment: WorkerNumber, shared: Shared, parent: int, pipe: Connection
) -> None:
    """Train until the run ends, or until the process that started this one (`parent`) is gone."""
    # Ctrl-C and a closed terminal reach every process; the parent ends the run in good order.
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    try:
        _train(make, assignment, shared, parent, pipe)
    except BrokenPipeError:
        return
    except LossNotFinite as error:
        _fail(pipe, WorkerFailed(str(error), diverged=True))
    except Exception as error:  # noqa: BLE001 - reported to the parent, whatever it is
        _fail(pipe, WorkerFailed(one_line(error), diverged=False))


def _fail(pipe: Connection, message: WorkerFailed) -> None:
    try:
        pipe.send(message)
    except BrokenPipeError:
        return
    sys.exit(_EXIT_FAILED)


def _train(
    make: MakeWorker, assignment: WorkerNumber, shared: Shared, parent: int, pipe: Connection
) -> None:
    worker = make(assignment)
    agent, player = worker.agent, worker.player
    before = assignment.number * player.environments.count
    try:
        optimizer = SharedOptimizer(shared, agent.optimizer)
        progress = shared.progress[assignment.number]
        learned: list[RolloutLearned] = []
        while not shared.ends and os.getppid() == parent:
            shared.copy_to(agent.network)
            step = shared.step
            played = play_rollout(
                player, agent, steps=worker.rollout_steps, discount=worker.discount
            )
            learned.append(agent.gradient(played.rollout))
            gradients = (parameter.grad for parameter in agent.network.parameters())
            optimizer.step(gradients, worker.step_size(step))
            agent.next_rollout()
            progress += torch.tensor([played.steps, 1])
            for _, game in played.games:
                pipe.send(WorkerGame(before + game.environment, game))
            if len(learned) == worker.log_every:
                seen = agent.behaviour(player.observation, player.first)
                pipe.send(WorkerLearned(learned, renumbered(seen, before)))
                learned = []
    finally:
        player.environments.close()


def renumbered(behaviour: dict[str, float], before: int) -> dict[str, float]:
    """Return the figures with `before` added to the environments' numbers in their tags."""
    numbered: dict[str, float] = {}
    for tag, value in behaviour.items():
        kind, _, number = tag.partition("/env_")
        numbered[f"{kind}/env_{before + int(number)}" if number else kind] = value
    return numbered
