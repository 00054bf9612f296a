"""Cures in the agents: when they come, what they move, and that a dead network learns by them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import noisynet
from noisynet.agents import (
    ActorCritic,
    Agent,
    LossNotFinite,
    ParallelQLearning,
    QLearning,
    Revival,
    Rollout,
    StaticUpdates,
    adam,
)
from noisynet.agents.noise_metrics import unit_figures
from noisynet.assemble import build_agent
from noisynet.networks import NoiseSettings, QNetwork, build_q_network
from noisynet.runs import config

from .small_agents import ACTIONS, SHAPE, make_batch


def make_agent(preset: str = "cartpole", **overrides: Any) -> Agent:
    fixed = {"device": "cpu", "precision": "float32", "threads": 1, "torso_hidden": [16]}
    return build_agent(config.load(preset, {**fixed, **overrides}), SHAPE, ACTIONS)


def make_rollout(agent: Agent, steps: int = 6, environments: int = 8) -> Rollout:
    generator = np.random.Generator(np.random.PCG64(0))
    shape = (steps, environments)
    none = np.zeros(shape, bool)
    return Rollout.of_steps(
        observation=generator.normal(size=(steps + 1, environments, *SHAPE)).astype(np.float32),
        first=np.zeros((steps + 1, environments), bool),
        action=generator.integers(ACTIONS, size=shape),
        reward=generator.normal(size=shape).astype(np.float32),
        terminated=none,
        truncated=none,
        ignored=none,
        discount=0.9,
    )


def kill(layer: nn.Module) -> None:
    """Make all units of a layer silent for any input."""
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.fill_(-1.0 if name == "bias" else 0.0)


def parameters(agent: Agent) -> dict[str, torch.Tensor]:
    return {name: one.detach().clone() for name, one in agent.network.named_parameters()}


def test_an_iqn_s_units_are_followed_through_the_product_with_tau() -> None:
    torch.manual_seed(0)
    network = build_q_network((1, 36, 36), ACTIONS, head_hidden=8, dueling=True, quantiles=4)
    observation = torch.rand(6, 1, 36, 36)
    last = network.get_submodule("torso.convolutions.4")
    with torch.no_grad():
        for layer in (last, network.head.embedding):
            layer.weight[:4], layer.bias[:4] = 0.0, -1.0
        last.bias[4:] = 1.0
    figures = unit_figures(network, observation, torch.Generator().manual_seed(0))
    layers = {name.removeprefix("dormant/") for name in figures if name.startswith("dormant/")}
    convolutions = {f"torso.convolutions.{i}" for i in (0, 2, 4)}
    assert layers == {*convolutions, "embedding", "advantage.0", "value.0"}
    with noisynet.mean_weights(network):
        before = network(observation)
        # Of units that never answer, the output does not change; of nearly dormant ones, a little.
        optimizer = torch.optim.Adam(network.parameters())
        found = noisynet.revive(network, optimizer, observation, threshold=0.0)
        assert torch.allclose(network(observation), before, atol=1e-6)
    assert found.left == {}
    assert found.units["torso.convolutions.4"][:4] == (0, 1, 2, 3)
    assert found.units["head.embedding"][:4] == (0, 1, 2, 3)


def test_without_a_cure_nothing_differs() -> None:
    assert make_agent().revival is None
    agent = make_agent()
    assert "revived" not in agent.figures()
    assert "revived" not in agent.state()[1]


def update(agent: Agent) -> None:
    if isinstance(agent, QLearning):
        agent.update(make_batch())
    elif isinstance(agent, ActorCritic):
        agent.update(make_rollout(agent))
    else:
        assert isinstance(agent, ParallelQLearning)
        if not agent.updates_left:
            agent.begin(make_rollout(agent))
        agent.update()


@pytest.mark.parametrize("preset", ["cartpole", "pqn-cartpole", "cartpole-noisy-a2c"])
def test_a_network_that_an_update_ruined_is_told_as_a_loss_is(preset: str) -> None:
    agent = make_agent(preset, redo_every=1, environments=8)
    agent.optimizer.param_groups[0]["lr"] = 1e38
    said = "the network's activations became NaN or infinite at update 1"
    with pytest.raises(LossNotFinite, match=said):
        update(agent)


@pytest.mark.parametrize("preset", ["cartpole", "pqn-cartpole", "cartpole-noisy-a2c"])
def test_dead_units_are_drawn_anew_when_it_is_time(preset: str) -> None:
    small = {"minibatches": 4} if preset.startswith("pqn") else {}
    agent = make_agent(preset, redo_every=3, environments=8, **small)
    kill(agent.network.torso.layers[0])
    for done in range(1, 4):
        update(agent)
        assert agent.figures()["revived"] == agent.revived
        assert agent.revived >= 16 if done == 3 else agent.revived == 0
    assert agent.network.torso.layers[0].bias.detach().ne(-1).all()
    observation = np.random.default_rng(0).normal(size=(8, *SHAPE)).astype(np.float32)
    figures = agent.behaviour(observation, np.zeros(8, bool))
    assert figures["dormant/torso.layers.0"] < 1
    # What has been counted is added up, and saved.
    counted = agent.revived
    kill(agent.network.torso.layers[0])
    for _ in range(3):
        update(agent)
    assert agent.revived >= counted + 16
    arrays, plain = agent.state()
    other = make_agent(preset, redo_every=3, environments=8, **small)
    other.restore(arrays, plain)
    assert other.revived == agent.revived


def test_a_reset_and_a_shrink_come_together_and_reach_the_target() -> None:
    agent = make_agent(shrink_every=2, shrink_factor=0.5, reset_every=2, sigma0=0.5)
    assert isinstance(agent, QLearning)
    update(agent)
    before = parameters(agent)
    agent.optimizer.param_groups[0]["lr"] = 0.0  # what moves is moved by the cures
    update(agent)
    after = parameters(agent)
    for name, value in after.items():
        assert torch.equal(value, agent.target.get_parameter(name))
    sigma = after["head.q.0.weight_sigma"]
    assert torch.allclose(sigma, torch.tensor(0.5 / 16**0.5))  # new
    torso = after["torso.layers.0.weight"]
    drawn = 2 * torso - before["torso.layers.0.weight"]
    assert drawn.abs().max() <= 0.5 + 1e-6  # half of what it was, half of new values
    assert not torch.equal(torso, before["torso.layers.0.weight"])


def test_redo_leaves_the_target_alone() -> None:
    agent = make_agent(redo_every=1)
    assert isinstance(agent, QLearning)
    kill(agent.network.torso.layers[0])
    before = copy.deepcopy(agent.target.state_dict())
    update(agent)
    assert agent.revived >= 16
    assert all(torch.equal(one, before[name]) for name, one in agent.target.state_dict().items())


def test_updates_from_buffers_that_stay_are_the_same_bit_for_bit() -> None:
    cures = {"redo_every": 2, "shrink_every": 3, "reset_every": 5, "dormant_threshold": 0.3}
    agents = [make_agent(**cures), make_agent(**cures)]
    static: Any = agents[1]
    updates = StaticUpdates(static)
    for number in range(6):
        agents[0].update(make_batch(seed=number))  # type: ignore[call-arg, arg-type]
        updates.update(make_batch(seed=number))
    (one, plain), (other, other_plain) = (agent.state() for agent in agents)
    assert plain == other_plain
    assert plain["revived"] > 0
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_intervals() -> None:
    revival = Revival(redo_every=4, reset_every=6)
    assert [n for n in range(1, 13) if revival.is_due(n)] == [4, 6, 8, 12]
    assert [n for n in range(1, 13) if revival.needs_target_copy(n)] == [6, 12]
    assert not any(Revival().is_due(n) for n in range(5))


def test_a_cure_draws_by_seed_and_update_and_goes_by_its_threshold() -> None:
    def cured(updates: int, seed: int = 0, **cure: Any) -> tuple[int, list[float]]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        found = Revival(**cure).apply(
            net, adam(net.parameters()), torch.ones(1, 4), updates=updates, seed=seed
        )
        return found.count, nn.utils.parameters_to_vector(net.parameters()).tolist()

    shrunk = [cured(*one, shrink_every=1) for one in ((2, 0), (2, 0), (3, 0), (2, 1))]
    assert shrunk[0] == shrunk[1]
    assert all(shrunk[0] != other for other in shrunk[2:])
    few, more = (cured(1, redo_every=1, dormant_threshold=one)[0] for one in (0.0, 0.9))
    assert few < more


# Frames


def frames_network(torso: str, size: int = 36, **options: Any) -> QNetwork:
    torch.manual_seed(0)
    noise = NoiseSettings()
    return build_q_network(
        (4, size, size), ACTIONS, torso=torso, head_hidden=16, noise=noise, **options
    )


def frames(rows: int, size: int = 36) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (rows, 4, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_torso_of_patches_is_measured_as_it_computes(layer_norm: bool) -> None:
    network, shown = frames_network("data-efficient", layer_norm=layer_norm), frames(5)
    found = noisynet.units(network, shown, draws=0)
    names = [name for name, one in network.named_modules() if type(one) is nn.Conv2d]
    assert list(found) == [*names, "head.q.0"]
    features = network.torso(shown).detach()
    assert found[names[1]].norm == pytest.approx(float(features.norm(dim=1).mean()), rel=1e-5)
    activity = features.abs().reshape(5, 64, -1).mean((0, 2))
    expected = (activity / activity.mean()).tolist()
    assert found[names[1]].scores.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    # It goes on by patches.
    assert network.torso.prepare(shown).shape[-1] == 4 * 5 * 5


def test_the_doctor_says_why_a_dead_network_of_pong_does_not_learn() -> None:
    """As `benchmarks/results/pong/earlier/dead-network`: a CNN none of whose units answers."""
    network, shown = frames_network("nature", dueling=True), frames(8)
    noisynet.hold(network, rows=8)
    assert noisynet.doctor(network, shown)["units"].status == "pass"
    for layer in network.torso.convolutions:
        if isinstance(layer, nn.Conv2d):
            with torch.no_grad():
                layer.bias.sub_(5.0)  # type: ignore[union-attr]
    diagnosis = noisynet.doctor(network, shown)
    assert not diagnosis.ok
    assert diagnosis["units"].status == diagnosis["policy"].status == "fail"
    assert "all units of 'torso.convolutions.0', " in diagnosis["units"].message
    assert "noisynet.revive" in diagnosis["units"].cure
    for check in ("units", "policy"):
        assert "noisynet resume RUN --redo-every 1000" in diagnosis[check].cure
    figures = unit_figures(network, shown, torch.Generator().manual_seed(0))
    assert figures["dormant/torso.convolutions.0"] == 1
    noisynet.revive(network, torch.optim.Adam(network.parameters()), shown)
    assert noisynet.doctor(network, shown)["units"].status == "pass"


@pytest.mark.parametrize("cured", [False, True])
def test_an_agent_with_a_dead_torso_learns_with_the_cure_alone(cured: bool) -> None:
    torch.manual_seed(0)
    network = build_q_network(
        SHAPE, ACTIONS, torso_hidden=[32, 32], head_hidden=32, noise=NoiseSettings()
    )
    agent = QLearning(
        network,
        adam(network.parameters(), learning_rate=3e-3),
        actions=ACTIONS,
        environments=2,
        revival=Revival(redo_every=20) if cured else None,
    )
    for layer in agent.online.torso.layers:
        if isinstance(layer, nn.Linear):
            kill(layer)
    batch = make_batch(size=64)
    batch.discount_t[:] = 0
    batch.return_t[:] = np.sign(batch.observation_tm1[:, 0])  # no constant predicts it
    losses = [agent.update(batch).loss for _ in range(400)]
    late = float(np.mean(losses[-50:]))
    assert late < 0.2 if cured else late > 0.4  # 0.5 by the best constant
