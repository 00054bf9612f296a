"""Minibatches from buffers that stay: the updates are those of `ParallelQLearning.update`."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from noisynet.agents import ActingPass, LossNotFinite, ParallelQLearning, Rollout, StaticMinibatches
from noisynet.agents.static_forward import StaticForward
from noisynet.assemble import build_agent
from noisynet.assemble.agents import step_size
from noisynet.control import scale
from noisynet.runs import config

STEPS, ENVIRONMENTS, ACTIONS, SHAPE = 7, 4, 3, (5,)
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ],
    ),
]


def agent_of(device: str, preset: str = "pqn-cartpole", **overrides: Any) -> ParallelQLearning:
    chosen = config.load(
        preset,
        {
            "environments": ENVIRONMENTS, "rollout_steps": STEPS, "minibatches": 3, "epochs": 2,
            "torso_hidden": [8], "head_hidden": 7, "device": device, "precision": "float32",
            **overrides,
        },
    )  # fmt: skip
    agent = build_agent(chosen, SHAPE, ACTIONS)
    assert isinstance(agent, ParallelQLearning)
    return agent


def rollout_of(seed: int, taken: int = 25, steps: int = STEPS) -> Rollout:
    """Make up a rollout of `steps` × 4 steps, some of which were taken."""
    generator = np.random.default_rng(seed)
    shape = (steps, ENVIRONMENTS)
    return Rollout.of_steps(
        observation=generator.normal(size=(steps + 1, ENVIRONMENTS, *SHAPE)).astype(np.float32),
        first=np.zeros((steps + 1, ENVIRONMENTS), bool),
        action=generator.integers(ACTIONS, size=shape),
        reward=generator.normal(size=shape).astype(np.float32),
        terminated=generator.random(shape) < 0.1,
        truncated=generator.random(shape) < 0.1,
        ignored=generator.permutation(steps * ENVIRONMENTS).reshape(shape) >= taken,
        discount=0.9,
    )


def assert_alike(one: ParallelQLearning, other: ParallelQLearning) -> None:
    arrays, plain = one.state()
    others, other_plain = other.state()
    assert plain == other_plain
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        np.testing.assert_allclose(others[name], array, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("learning_draw", ["fresh", "rows"])
@pytest.mark.parametrize("changed", [{"minibatches": 1}, {"minibatches": 13}, {"epochs": 4}])
def test_a_rollout_that_was_begun_otherwise_is_learned_to_its_end(
    device: str, learning_draw: str, changed: dict[str, Any]
) -> None:
    """The next has other minibatches, in other buffers."""
    begun = agent_of(device, learning_draw=learning_draw)
    begun.begin(rollout_of(0))
    for _ in range(4):
        begun.update()
    plain, static = (agent_of(device, learning_draw=learning_draw, **changed) for _ in range(2))
    for agent in (plain, static):
        agent.restore(*copy.deepcopy(begun.state()))
    updates = StaticMinibatches(static, 1e-3)
    for seed in (1, 2):
        while plain.updates_left:
            assert plain.updates_left == static.updates_left
            plain.update(1e-3)
            updates.update(1e-3)
        assert_alike(plain, static)
        for agent in (plain, static):
            agent.begin(rollout_of(seed))


@pytest.mark.parametrize("device", DEVICES)
def test_longer_rollouts_may_follow_in_minibatches_of_the_same_length(device: str) -> None:
    """As after a resume with more `rollout_steps`, while a rollout was being learned."""
    plain, static = (agent_of(device, minibatches=13) for _ in range(2))
    updates = StaticMinibatches(static, 1e-3)
    for steps in (STEPS, STEPS + 1):
        for agent in (plain, static):
            agent.begin(rollout_of(0, steps=steps))
        assert plain.current.longest == 3
        while plain.updates_left:
            plain.update(1e-3)
            updates.update(1e-3)
        assert_alike(plain, static)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"learning_draw": "rows"},
        {"learning_draw": "rows", "noise_kind": "independent", "noise_in": "head"},
        {"learning_draw": "acted", "redraw": "update"},
        {"learning_draw": "acted", "redraw": "update", "draw_per_environment": False},
        {"noise_kind": "independent", "noise_in": "head"},
        {"target_draw": "means"},
        {"target_draw": "fresh"},
        {"optimizer": "adam"},
        {"optimizer": "rmsprop"},
        {"prioritised": True, "priority_exponent": 1.0},
        {"redo_every": 3},
        {"max_gradient_norm": 0.01},
        {"loss": "huber"},
        {"minibatches": 1},
    ],
    ids=str,
)
def test_they_are_the_plain_updates(device: str, overrides: dict[str, Any]) -> None:
    plain, static = agent_of(device, **overrides), agent_of(device, **overrides)
    updates = StaticMinibatches(static, 1e-3)
    learned: list[float] = []
    told: list[float] = []
    for number in range(3):
        # Fewer steps in the second rollout: its minibatches are shorter.
        rollout = rollout_of(number, taken=17 if number == 1 else 25)
        actions = []
        for agent in (plain, static):
            passes: list[ActingPass] = []
            for t in range(STEPS):
                actions.append(agent.act(rollout.observation[t], 10**6, rollout.first[t]))
                assert agent.acting_pass is not None
                passes.append(agent.acting_pass)
            agent.begin(rollout, passes)
        assert np.array_equal(actions[:STEPS], actions[STEPS:])
        size = 1e-3 / (1 + number)
        while plain.updates_left:
            assert plain.updates_left == static.updates_left
            one = plain.update(size)
            learned += [one.loss, one.q]
            updates.update(size)
        assert not static.updates_left
        told += [value for one in updates.learned() for value in (one.loss, one.q)]
    np.testing.assert_allclose(told, learned, rtol=1e-3, atol=1e-4)
    assert_alike(plain, static)


@pytest.mark.parametrize("device", DEVICES)
def test_by_epsilon_too(device: str) -> None:
    plain, static = (agent_of(device, "pqn-cartpole-epsilon") for _ in range(2))
    updates = StaticMinibatches(static)
    for number in range(2):
        for agent in (plain, static):
            agent.begin(rollout_of(number))
        while plain.updates_left:
            plain.update()
            updates.update()
    assert_alike(plain, static)


@pytest.mark.parametrize("device", DEVICES)
def test_rollouts_of_fewer_steps_than_minibatches_have_fewer_or_none(device: str) -> None:
    plain, static = agent_of(device), agent_of(device)
    updates = StaticMinibatches(static)
    for number, taken in enumerate((25, 2, 0, 1, 28)):
        for agent in (plain, static):
            agent.begin(rollout_of(number, taken))
            assert agent.updates_left == 2 * min(taken, 3)
        learned = []
        while plain.updates_left:
            learned.append(plain.update().loss)
            updates.update()
        np.testing.assert_allclose([one.loss for one in updates.learned()], learned, rtol=1e-3)
    with pytest.raises(ValueError, match="no rollout to learn from"):
        updates.update()
    assert_alike(plain, static)


@pytest.mark.parametrize("device", DEVICES)
def test_a_scale_that_was_1_when_a_graph_was_captured_may_change(device: str) -> None:
    options = {
        "noise_schedule": "linear", "noise_scale_end": 0.25, "noise_scale_steps": 100,
        "learning_draw": "acted", "redraw": "update", "sigma0": 2.0,
    }  # fmt: skip
    plain, static = agent_of(device, **options), agent_of(device, **options)
    updates = StaticMinibatches(static)
    for number, step in enumerate((0, 0, 0, 50, 100)):
        rollout = rollout_of(number)
        actions = []
        for agent in (plain, static):
            for t in range(STEPS):
                actions.append(agent.act(rollout.observation[t], step, rollout.first[t]))
            agent.begin(rollout)
            assert scale(agent.network) == {0: 1.0, 50: 0.625, 100: 0.25}[step]
        assert np.array_equal(actions[:STEPS], actions[STEPS:])
        while plain.updates_left:
            plain.update()
            updates.update()
    assert_alike(plain, static)


@pytest.mark.parametrize("device", DEVICES)
def test_a_rollout_that_was_begun_goes_on(device: str) -> None:
    origin = agent_of(device)
    origin.begin(rollout_of(0))
    origin.update()
    origin.update()
    arrays, plain_state = origin.state()
    restored = agent_of(device)
    restored.restore(arrays, plain_state)
    updates = StaticMinibatches(restored)
    while origin.updates_left:
        origin.update()
        updates.update()
    assert_alike(origin, restored)
    observation = rollout_of(1).observation
    for seen in observation:
        restored.greedy(seen)
    restored.restore(arrays, plain_state)
    with pytest.raises(RuntimeError, match="restored after its StaticMinibatches were made"):
        updates.update()
    fresh = agent_of(device)
    fresh.restore(arrays, plain_state)
    for seen in observation:
        assert np.array_equal(restored.greedy(seen), fresh.greedy(seen))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("optimizer", ["adam", "radam", "rmsprop"])
def test_an_update_that_fails_leaves_the_parameters(device: str, optimizer: str) -> None:
    agent = agent_of(device, optimizer=optimizer, minibatches=2, epochs=4)
    updates = StaticMinibatches(agent)
    agent.begin(rollout_of(0))
    for _ in range(6):
        updates.update()
    before = [parameter.detach().clone() for parameter in agent.network.parameters()]
    broken = rollout_of(1)
    broken.reward_t[:] = np.nan
    agent.begin(broken)
    for _ in range(3):
        updates.update()
    with pytest.raises(LossNotFinite, match="the loss became nan at update 7"):
        updates.learned()
    for one, other in zip(before, agent.network.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_captured_update_waits_for_nothing() -> None:
    agent = agent_of("cuda", minibatches=3, epochs=4)
    updates = StaticMinibatches(agent)
    agent.begin(rollout_of(0))
    for _ in range(6):
        updates.update()
    torch.cuda.set_sync_debug_mode("error")
    try:
        updates.update()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(updates.learned()) == 7


@pytest.mark.parametrize("device", DEVICES)
def test_a_static_forward_returns_tensors_of_their_own_and_refuses_another_shape(
    device: str,
) -> None:
    forward = StaticForward(lambda x: (2 * x, x.sum(-1)), torch.device(device))
    for number in range(6):
        array = np.full((2, 3), number, np.float32)
        double, total = forward(array)
        assert np.array_equal(double.cpu(), 2 * array)
        assert total.tolist() == [3 * number, 3 * number]
    kept, _ = forward(np.ones((2, 3), np.float32))
    forward(np.zeros((2, 3), np.float32))
    assert kept.tolist() == [[2, 2, 2], [2, 2, 2]]
    with pytest.raises(ValueError, match=r"got shape \(3, 3\), expected \(2, 3\)"):
        forward(np.zeros((3, 3), np.float32))


def test_the_size_of_a_step_is_that_of_the_schedule() -> None:
    agent = agent_of("cpu", final_learning_rate=0.0, steps=100)
    size = step_size(config.load("pqn-cartpole", {"final_learning_rate": 0.0, "steps": 100}))
    assert float(StaticMinibatches(agent, size(50))._step_size) == size(50)
