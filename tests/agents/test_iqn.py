"""The agent's loss with Q-values or implicit quantiles against a slow one, and its τ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from noisynet import Draw, hold, mean_weights
from noisynet.agents import Munchausen, QLearning, SampledQuantiles, adam
from noisynet.assemble import build_agent
from noisynet.networks import build_q_network
from noisynet.replay import Batch
from noisynet.runs import config

from . import small_agents
from .small_agents import ACTIONS, SHAPE, slow_layer

SIZE = 6
FIRST = np.zeros(8, bool)
IQN = {"quantiles": 4, "target_quantiles": 5, "acting_quantiles": 3}
MUNCHAUSEN = {"munchausen": 0.9, "entropy_temperature": 0.3, "log_policy_least": -0.2}
Weights = dict[str, np.ndarray]


def make_agent(preset: str = "cartpole", **overrides: Any) -> QLearning:
    small = {"torso_hidden": [9], "head_hidden": 7}
    chosen = {"device": "cpu", "precision": "float32", "threads": 1, **small, **overrides}
    agent = build_agent(config.load(preset, chosen), SHAPE, ACTIONS)
    assert isinstance(agent, QLearning)
    with torch.no_grad():
        for parameter in agent.target.parameters():
            parameter.mul_(-1.05)  # so that it matters which net is asked, and which chooses
    return agent


def make_batch(seed: int = 0) -> Batch[np.ndarray]:
    return small_agents.make_batch(seed, weighted=True, size=SIZE)


def values(
    weights: Weights, noise: Draw | None, x: np.ndarray, tau: float | None, dueling: bool
) -> np.ndarray:
    """Return Q (actions,) of one row, or its quantiles at one τ."""
    features = np.maximum(slow_layer(weights, noise, "torso.layers.0", x), 0)
    if tau is not None:
        cosines = np.cos(np.pi * tau * np.arange(64))
        features = features * np.maximum(slow_layer(weights, noise, "head.embedding", cosines), 0)

    def stream(name: str) -> np.ndarray:
        hidden = np.maximum(slow_layer(weights, noise, f"head.{name}.0", features), 0)
        return slow_layer(weights, noise, f"head.{name}.2", hidden)

    if dueling:
        advantage = stream("advantage")
        return stream("value") + advantage - advantage.mean()
    return stream("q" if tau is None else "advantage")


def log_policy(q: np.ndarray, temperature: float) -> np.ndarray:
    """Return τ ln π."""
    powers = np.exp((q - q.max()) / temperature)
    return temperature * np.log(powers / powers.sum())


@pytest.mark.parametrize("dueling", [True, False])
@pytest.mark.parametrize("exploration", ["noise", "epsilon"])
@pytest.mark.parametrize("targets", ["munchausen", "double", "greedy"])
@pytest.mark.parametrize("quantiles", [True, False])
def test_the_loss_is_the_papers(
    dueling: bool, exploration: str, targets: str, quantiles: bool
) -> None:
    parts = dict(IQN if quantiles else {})
    parts |= MUNCHAUSEN if targets == "munchausen" else {"double": targets == "double"}
    noise_in = {"noise_in": "all"} if exploration == "noise" else {}
    agent = make_agent(dueling=dueling, exploration=exploration, **parts, **noise_in)
    batch, draws = make_batch(), agent.draws()
    samples = SampledQuantiles(torch.rand(4, SIZE), torch.rand(5, SIZE), torch.rand(3, SIZE))
    nets: dict[str, Weights] = {
        name: {key: value.double().numpy() for key, value in net.state_dict().items()}
        for name, net in (("online", agent.online), ("target", agent.target))
    }

    def all_values(
        net: str, noise: Draw | None, x: np.ndarray, tau: torch.Tensor | None, row: int
    ) -> np.ndarray:
        taus = [None] if not quantiles or tau is None else tau[:, row].double().tolist()
        return np.array([values(nets[net], noise, x, one, dueling) for one in taus])

    total, errors = 0.0, []
    for row, action in enumerate(batch.action_tm1):
        return_t, discount_t = float(batch.return_t[row]), float(batch.discount_t[row])
        x_tm1, x_t = (
            batch.observation_tm1[row].astype(float),
            batch.observation_t[row].astype(float),
        )
        online_tm1 = all_values("online", draws[0], x_tm1, samples.online, row)
        target_t = all_values("target", draws[1], x_t, samples.target, row)
        if targets == "munchausen":
            # Under ε, as what is learned.
            bonus = max(log_policy(online_tm1.mean(0), 0.3)[action], -0.2)
            log_policy_t = log_policy(target_t.mean(0), 0.3)
            policy_t = np.exp(log_policy_t / 0.3)
            soft_t = (policy_t * (target_t - log_policy_t)).sum(1)
            wanted = return_t + 0.9 * bonus + discount_t * soft_t
        else:
            chooser = target_t
            if targets == "double":
                chooser = all_values("online", draws[2], x_t, samples.choice, row)
            wanted = return_t + discount_t * target_t[:, chooser.mean(0).argmax()]
        loss = error = 0.0
        for i, prediction in enumerate(online_tm1[:, action]):
            for one in wanted:
                delta = one - prediction
                huber = 0.5 * delta**2 if abs(delta) <= 1 else abs(delta) - 0.5
                slope = abs(float(samples.online[i, row]) - (delta < 0)) if quantiles else 1.0
                loss += slope * huber / len(wanted)
                error += abs(delta) / len(wanted)
        assert batch.weights is not None
        total += float(batch.weights[row]) * loss / SIZE
        errors.append(error)
    found, found_errors = agent.loss_and_errors(batch, draws, samples if quantiles else None)
    assert float(found.detach()) == pytest.approx(total, rel=1e-5)
    np.testing.assert_allclose(found_errors.numpy(), errors, rtol=1e-4)


# Chances


def test_acting_and_learning_draw_their_fractions_apart() -> None:
    agent, other = make_agent(**IQN), make_agent(**IQN)
    observation = np.zeros((8, *SHAPE), np.float32)
    for _ in range(3):
        agent.act(observation, 10**6, FIRST)
    # Its actions have not moved what updates draw.
    assert agent.update(make_batch()).loss == other.update(make_batch()).loss
    sampler = agent._quantiles
    assert sampler is not None
    one, two = (sampler.of_update(SIZE, choice=True) for _ in range(2))
    drawn = [one.online, one.target, one.choice, two.online, two.target, sampler.of_actions(SIZE)]
    assert [None if part is None else len(part) for part in drawn] == [4, 5, 3, 4, 5, 3]
    every = torch.cat([part.flatten() for part in drawn if part is not None])
    assert len(every.unique()) == len(every)
    assert 0 <= float(every.min()) < 0.1
    assert 0.9 < float(every.max()) < 1
    assert sampler.of_update(SIZE, choice=False).choice is None


def test_an_agent_explores_by_sampled_quantiles_and_is_looked_at_by_fixed_ones() -> None:
    agent = make_agent(quantiles=4, acting_quantiles=1, exploration="none")
    with torch.no_grad():
        for name, parameter in agent.online.named_parameters():
            if "embedding" in name:
                parameter.mul_(10)  # so that a fraction matters
    observation = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
    same = observation.repeat(200, 0)
    assert len(set(agent.greedy(same).tolist())) == 1
    assert (agent.greedy(same) == agent.greedy(same)).all()
    first = np.zeros(200, bool)
    assert len(set(agent.act(same, 10**6, first).tolist())) > 1


def test_state_and_restore_go_on_bit_for_bit() -> None:
    agent = make_agent("cartpole-btr")
    observation = make_batch().observation_t[[0, 1, 2, 3, 4, 5, 0, 1]]
    for seed in range(3):
        agent.update(make_batch(seed))
        agent.act(observation, 10**6, FIRST)
    arrays, plain = agent.state()
    arrays = {name: array.copy() for name, array in arrays.items()}
    other = make_agent("cartpole-btr", seed=99)
    other.restore(arrays, plain)
    for seed in range(3, 6):
        assert agent.update(make_batch(seed)).loss == other.update(make_batch(seed)).loss
        acted = [one.act(observation, 10**6, FIRST) for one in (agent, other)]
        assert np.array_equal(*acted)
    left, right = agent.state()[0], other.state()[0]
    assert {"generator.acting_quantiles", "generator.learning_quantiles"} <= left.keys()
    assert all(np.array_equal(value, right[name]) for name, value in left.items())


def test_spectral_norm_goes_on_bit_for_bit_whoever_looks_at_the_agent() -> None:
    shape = (4, 41, 43)
    small = {
        "device": "cpu", "precision": "float32", "threads": 1, "environments": 2,
        "torso_width": 0.125, "torso_pooling": 2, "head_hidden": 8,
    }  # fmt: skip
    generator = np.random.Generator(np.random.PCG64(0))
    frames = generator.integers(0, 256, size=(3, 2, *shape), dtype=np.uint8)
    batches = [
        Batch(
            observation_tm1=one,
            action_tm1=np.array([0, 2]),
            return_t=np.array([1.0, -1.0], np.float32),
            discount_t=np.array([0.9, 0.0], np.float32),
            observation_t=one[::-1].copy(),
        )
        for one in frames
    ]

    def built(seed: int) -> QLearning:
        agent = build_agent(config.load("btr", {**small, "seed": seed}), shape, ACTIONS)
        assert isinstance(agent, QLearning)
        return agent

    agent, other = built(0), built(7)
    agent.update(batches[0])
    other.restore(*agent.state())
    # Looked at, and copied to the target net, which has the estimates from then on.
    agent.greedy(frames[0])
    agent.behaviour(frames[0], np.zeros(2, bool))
    for one in (agent, other):
        one.copy_to_target()
    for batch in batches[1:]:
        assert agent.update(batch).loss == other.update(batch).loss
    left, right = agent.state()[0], other.state()[0]
    assert sum(name.endswith("_u") for name in left) == 24
    assert all(np.array_equal(value, right[name]) for name, value in left.items())


def test_other_agents_have_no_generators_of_fractions() -> None:
    assert not any("quantiles" in name for name in make_agent().state()[0])
    assert len(make_agent().generators) == 2
    assert len(make_agent(**IQN).generators) == 3


# By hand


def test_the_log_policy_of_what_was_done_comes_from_the_online_net_s_draw() -> None:
    """With a discount of 0 the target is the reward and that bonus, under ε."""
    agent = make_agent(**MUNCHAUSEN, sigma0=2.0, loss="squared")
    batch, draws = make_batch(), agent.draws()
    batch.discount_t[:] = 0
    _, errors = agent.loss_and_errors(batch, draws)
    bonuses = {}
    for name, noise in (("online", draws[0]), ("means", None)):
        if noise is not None:
            hold(agent.online, drawn=noise)
            q = agent.online(torch.from_numpy(batch.observation_tm1))
        else:
            with mean_weights(agent.online):
                q = agent.online(torch.from_numpy(batch.observation_tm1))
        action = torch.from_numpy(batch.action_tm1).unsqueeze(-1)
        policy = 0.3 * (q / 0.3).log_softmax(-1).gather(-1, action).squeeze(-1).clamp_min(
            -0.2 / 0.3
        )
        wanted = torch.from_numpy(batch.return_t) + 0.9 * policy - q.gather(-1, action).squeeze(-1)
        bonuses[name] = wanted.detach().abs()
    torch.testing.assert_close(errors, bonuses["online"], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(errors, bonuses["means"], atol=1e-2)


def test_an_agent_built_by_hand_refuses_atoms_with_soft_targets() -> None:
    network = build_q_network(SHAPE, ACTIONS, support=torch.linspace(-1, 1, 5))
    with pytest.raises(ValueError, match="munchausen: got a network of atoms, expected one of Q"):
        QLearning(
            network,
            adam(network.parameters()),
            actions=ACTIONS,
            environments=1,
            munchausen=Munchausen(temperature=0.03),
        )
