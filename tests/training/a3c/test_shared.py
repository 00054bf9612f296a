"""What the workers of an asynchronous run share: parameters, statistics, counters; no noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from noisynet.agents import ActorCritic
from noisynet.assemble import build_agent, make_environments
from noisynet.assemble.agents import step_size
from noisynet.runs import Config, config
from noisynet.training.a3c.shared import Shared, SharedOptimizer
from noisynet.training.player import Player, play_rollout

SMALL = {"environments": 2, "device": "cpu", "torso_hidden": [16], "head_hidden": 16}


def small(**overrides: Any) -> Config:
    return config.load("cartpole-noisy-a3c", {**SMALL, **overrides})


def make_agent(chosen: Config) -> ActorCritic:
    agent = build_agent(chosen, (4,), 2)
    assert isinstance(agent, ActorCritic)
    return agent


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_one_worker_alone_learns_what_a_synchronous_agent_does(optimizer: str) -> None:
    """Bit for bit, statistics included, and across a checkpoint."""
    chosen = small(optimizer=optimizer, learning_rate=1e-2)
    size = step_size(chosen)(40)
    alone, parent, worker = make_agent(chosen), make_agent(chosen), make_agent(chosen)
    player = Player(make_environments(chosen))
    for session in range(2):
        shared = Shared.of(parent, workers=1, steps_before=0, steps=1000)
        applied = SharedOptimizer(shared, worker.optimizer)
        for _ in range(2):
            shared.copy_to(worker.network)
            rollout = play_rollout(player, alone, steps=8, discount=0.99).rollout
            assert worker.gradient(rollout) == alone.update(rollout, size)
            gradients = [parameter.grad for parameter in worker.network.parameters()]
            applied.step(gradients, size)
            worker.next_rollout()
        if session == 0:
            arrays, plain = parent.state()
            arrays = {name: array.copy() for name, array in arrays.items()}
            parent = make_agent(chosen)
            parent.restore(arrays, plain)
    for name, value in alone.network.state_dict().items():
        assert torch.equal(value, parent.network.state_dict()[name]), name


def test_sharing_begins_with_the_agent_s_parameters_and_empty_statistics() -> None:
    agent = make_agent(small())
    before = {name: value.clone() for name, value in agent.network.state_dict().items()}
    shared = Shared.of(agent, workers=3, steps_before=7, steps=1000)
    assert all(torch.equal(agent.network.state_dict()[name], before[name]) for name in before)
    tensors = [*shared.parameters, shared.progress, shared.stopping]
    tensors += [tensor for one in shared.optimizer for tensor in one.values()]
    assert all(tensor.is_shared() for tensor in tensors)
    assert all(not tensor.any() for one in shared.optimizer for tensor in one.values())
    assert (shared.step, shared.updates, shared.ends) == (7, 0, False)
    # The noise is no part of it: each worker draws its own.
    held = [layer.noise_state.held for layer in agent.network.modules() if hasattr(layer, "noise")]
    assert held
    assert not any(flat is not None and flat.is_shared() for flat in held)


def test_workers_end_when_they_are_asked_to_or_the_budget_is_used() -> None:
    shared = Shared.of(make_agent(small()), workers=2, steps_before=7, steps=20)
    shared.progress[0] += torch.tensor([6, 1])
    shared.progress[1] += torch.tensor([6, 2])
    assert (shared.step, shared.updates, shared.ends) == (19, 3, False)
    shared.progress[1, 0] += 1
    assert shared.ends
    shared.progress.zero_()
    shared.stopping.fill_(True)
    assert shared.ends
