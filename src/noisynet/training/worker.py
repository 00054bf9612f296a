"""One process of an asynchronous run: play, take the gradient, add it to the shared parameters."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.connection import Connection

import torch

from ..agents import ActorCritic, LossNotFinite, Rollout, RolloutLearned, make_environments
from .rollouts import RolloutPlayer
from .shared import Assignment, Shared, SharedOptimizer, WorkerFailed, WorkerGame, WorkerLearned

_EXIT_FAILED = 1


def work(assignment: Assignment, shared: Shared, parent: int, pipe: Connection) -> None:
    """Train until the run ends, or `parent`, the process that started this one, is gone."""
    # Ctrl-C and a closed terminal reach every process; the parent ends the run in good order.
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    try:
        _train(assignment, shared, parent, pipe)
    except BrokenPipeError:
        return
    except LossNotFinite as error:
        _fail(pipe, WorkerFailed(str(error), diverged=True))
    except Exception as error:  # noqa: BLE001 - told to the parent, whatever it is
        said = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
        _fail(pipe, WorkerFailed(reason, diverged=False))


def _fail(pipe: Connection, message: WorkerFailed) -> None:
    try:
        pipe.send(message)
    except BrokenPipeError:
        return
    sys.exit(_EXIT_FAILED)


def _train(assignment: Assignment, shared: Shared, parent: int, pipe: Connection) -> None:
    config = assignment.own_config(shared.steps_before)
    torch.set_num_threads(config.training.threads)
    environments = make_environments(config)
    try:
        agent = ActorCritic(config, assignment.observation_shape, assignment.actions)
        optimizer = SharedOptimizer(shared, config)
        player = RolloutPlayer(config, environments, agent)
        progress = shared.progress[assignment.number]
        learned: list[RolloutLearned] = []
        while not shared.ends(config) and os.getppid() == parent:
            shared.copy_to(agent.network)
            step = shared.step
            played = player.play()
            learned.append(agent.gradient(played.rollout))
            gradients = (parameter.grad for parameter in agent.network.parameters())
            optimizer.step(gradients, agent.learning_rate(step))
            agent.next_rollout()
            progress += torch.tensor([played.steps, 1])
            for _, game in played.games:
                pipe.send(WorkerGame(game))
            if len(learned) == config.training.log_every:
                pipe.send(WorkerLearned(learned, _behaviour(agent, played.rollout, assignment)))
                learned = []
    finally:
        environments.close()


def _behaviour(agent: ActorCritic, rollout: Rollout, assignment: Assignment) -> dict[str, float]:
    """Give what the noise does to the policy, with environments by their numbers in the run."""
    figures = agent.figures(rollout.observation[-1], rollout.first[-1])
    before = assignment.number * assignment.config.environment.environments
    behaviour: dict[str, float] = {}
    for tag, value in figures.items():
        kind, _, number = tag.partition("/env_")
        if kind.startswith("noise/"):
            behaviour[f"{kind}/env_{before + int(number)}" if number else kind] = value
    return behaviour
