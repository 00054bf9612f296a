"""Schedules, targets and the penalty in our agents: what moves, when, and what is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import noisynet
from noisynet.agents import ActorCritic, ParallelQLearning, QLearning, StaticUpdates
from noisynet.agents.noise_control import HeldTarget, NoiseControl
from noisynet.assemble import build_agent, resume, start
from noisynet.control import scale, sigma_penalty
from noisynet.evaluation.agent import TrainedAgent
from noisynet.runs import checkpoint, config, open_run, read_metrics

from .small_agents import ACTIONS, SHAPE, make_batch

BASE = {
    "device": "cpu", "precision": "float32", "threads": 1, "environments": 4,
    "torso_hidden": [8], "head_hidden": 8,
}  # fmt: skip
FIRST = np.zeros(4, bool)


def make_agent(preset: str = "cartpole", **overrides: Any) -> Any:
    return build_agent(config.load(preset, {**BASE, **overrides}), SHAPE, ACTIONS)


def observations(seed: int, rows: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, *SHAPE)).astype(np.float32)


def test_a_schedule_sets_both_networks_at_every_step() -> None:
    agent = make_agent(noise_schedule="linear", noise_scale_end=0.2, noise_scale_steps=1000)
    assert isinstance(agent, QLearning)
    for step, expected in ((0, 1.0), (500, 0.6), (1000, 0.2), (5000, 0.2)):
        agent.act(observations(step), step, FIRST)
        assert scale(agent.online) == scale(agent.target) == pytest.approx(expected)
    assert agent.figures()["noise/scale"] == pytest.approx(0.2)
    agent.restore(*agent.state())
    for layer in noisynet.noisy_layers(agent.target).values():
        assert str(layer.noise_state.control).startswith("linear schedule")
    assert "noise/scale" not in make_agent().figures()


def test_a_constant_scale_is_there_from_the_start_for_every_agent() -> None:
    for preset in ("cartpole", "pqn-cartpole", "cartpole-noisy-a2c", "cartpole-noisy-a3c"):
        agent = make_agent(preset, noise_scale=0.3)
        assert [scale(one) for one in getattr(agent, "networks", {"": agent.network}).values()]
        assert scale(agent.network) == 0.3
    values = make_agent(noise_scale=0.3)
    assert scale(values.target) == 0.3


def test_a_target_is_measured_when_it_is_due_on_copies_of_the_last_observations() -> None:
    measured: list[list[float]] = []

    def measure(seen: tuple[np.ndarray, ...], _: torch.Generator) -> Any:
        measured.append(seen[0].flatten().tolist())
        return torch.zeros(1, len(seen[0]), 2), torch.zeros(len(seen[0]), 2)

    held = HeldTarget(effective_epsilon=0.1, every=4, observations=4)
    control = NoiseControl(held, [noisynet.NoisyLinear(1, 2)], measure, seed=0)
    memory = np.zeros((2, 1), np.float32)
    for step in (0, 1, 3, 9, 12, 13):
        memory[:] = step  # as environments may write the next observations
        control.see(memory)
        control.move(step)
    assert measured == [[0, 0], [3, 3, 9, 9], [12, 12, 13, 13]]


def measured(agent: Any, seed: int) -> float:
    shown = torch.from_numpy(observations(seed, 256))
    generator = torch.Generator().manual_seed(seed)
    return noisynet.behaviour(agent.network, shown, draws=32, generator=generator).effective_epsilon


@pytest.mark.parametrize("preset", ["cartpole", "pqn-cartpole"])
@pytest.mark.parametrize("noise_in", ["head", "all"])
def test_a_target_is_held_at_the_observations_that_are_acted_on(preset: str, noise_in: str) -> None:
    count = 32
    agent = make_agent(preset, noise_target=0.05, sigma0=0.5, noise_in=noise_in, environments=count)
    found = []
    for step in range(0, 360 * count, count):
        agent.act(observations(step, count), step, np.zeros(count, bool))
        if step > 120 * count and step % (4 * count) == 0:
            found.append(measured(agent, step))
    # 60 points of a scale that scatters.
    assert float(np.mean(found)) == pytest.approx(0.05, rel=0.25)


def test_a_target_of_implicit_quantiles_is_one_of_their_mean_at_fixed_fractions() -> None:
    count = 32
    agent = make_agent(
        "cartpole-iqn", noise_target=0.05, environments=count, sigma_penalty=1.0, penalty_high=5.0
    )
    shown, generators = torch.from_numpy(observations(0, 64)), [torch.Generator() for _ in range(2)]
    noisy, mean = agent._outputs((shown.numpy(),), generators[0].manual_seed(1))
    head = agent.online.head
    tau = ((torch.arange(head.samples) + 0.5) / head.samples).view(-1, 1).expand(-1, 64)
    drawn = noisynet.draw(head, rows=len(noisy), generator=generators[1].manual_seed(1))
    for row, values in enumerate(noisy):
        with noisynet.using(head, drawn[row]):
            by_hand = agent.online.quantiles(shown, tau).mean(0)
        torch.testing.assert_close(values, by_hand)
    with noisynet.mean_weights(head):
        torch.testing.assert_close(mean, agent.online.quantiles(shown, tau).mean(0))
    found = []
    for step in range(0, 360 * count, count):
        agent.act(observations(step, count), step, np.zeros(count, bool))
        if step > 120 * count and step % (4 * count) == 0:
            one = noisynet.behaviour(agent.network, shown, draws=128, generator=generators[0])
            found.append(one.effective_epsilon)
    # Before it learns, a draw changes the action of most observations or of few: 0.05 within three
    # standard errors of such points.
    assert float(np.mean(found)) == pytest.approx(0.05, abs=0.013)

    draws, tau = agent.draws(), agent._quantiles.of_update(16, choice=False)
    loss, errors = agent.loss_and_errors(make_batch(), draws, tau)
    agent.set_penalty_weight(2.5)  # half of the way to penalty_high
    penalised, same_errors = agent.loss_and_errors(make_batch(), draws, tau)
    assert torch.equal(errors, same_errors)
    penalty = sigma_penalty(agent.network.head.advantage[-1])
    torch.testing.assert_close(penalised - loss, 0.5 * penalty, rtol=1e-3, atol=1e-6)


def test_measuring_draws_from_no_generator_of_the_agent_s() -> None:
    plain, held = make_agent(), make_agent(noise_target=0.05, noise_target_every=4)
    for step in range(0, 40, 4):
        for agent in (plain, held):
            agent.act(observations(step), step, FIRST)
    assert scale(held.online) != 1.0
    arrays, others = (agent.state()[0] for agent in (plain, held))
    for name, array in arrays.items():
        assert np.array_equal(array, others[name]), name


def test_an_actor_critic_s_scale_moves_between_rollouts_alone() -> None:
    agent = make_agent("cartpole-noisy-a2c", noise_target=0.05, noise_target_every=4)
    assert isinstance(agent, ActorCritic)
    scales = []
    for rollout in range(3):
        inside = set()
        for step in range(5):
            agent.act(observations(step), 20 * rollout + 4 * step, FIRST)
            inside.add(scale(agent.network))
        assert len(inside) == 1
        scales += inside
        agent.next_rollout()
    assert len(set(scales)) == 3


@pytest.mark.parametrize("preset", ["cartpole", "pqn-cartpole", "cartpole-noisy-a2c"])
def test_the_state_has_the_scale_and_goes_on_as_if_nothing_had_happened(preset: str) -> None:
    def act(agent: Any, begin: int) -> None:
        for step in range(begin, begin + 400, 4):
            agent.act(observations(step), step, FIRST)
            if isinstance(agent, ActorCritic) and step % 40 == 36:
                agent.next_rollout()

    options = {"noise_target": 0.05, "sigma0": 0.5}
    whole, first, second = (make_agent(preset, **options) for _ in range(3))
    act(whole, 0)
    act(first, 0)
    second.restore(*first.state())
    assert scale(second.network) == scale(first.network) != 1.0
    for agent in (whole, second):
        act(agent, 400)
    assert scale(second.network) == scale(whole.network) != scale(first.network)


def test_a_state_without_a_scale_leaves_it_as_it_is() -> None:
    agent, former = make_agent(noise_scale=0.5), make_agent()
    assert "noise.scale" not in former.state()[0]
    agent.restore(*former.state())
    assert scale(agent.online) == 0.5


def test_the_penalty_is_added_to_the_loss_by_the_returns() -> None:
    options = {"sigma_penalty": 4.0, "penalty_low": 0.0, "penalty_high": 200.0}
    agent, plain = make_agent(dueling=True, **options), make_agent(dueling=True)
    batch = make_batch()
    draws = agent.draws()
    outputs: list[Any] = agent.network.output_layers()
    assert [type(one).__name__ for one in outputs] == ["NoisyLinear", "NoisyLinear"]
    assert {one.out_features for one in outputs} == {1, ACTIONS}
    without, _ = plain.loss_and_errors(batch, draws)
    for mean_return, weight in ((None, 0.0), (50.0, 1.0), (200.0, 4.0), (900.0, 4.0)):
        agent.set_penalty_weight(mean_return)
        loss, errors = agent.loss_and_errors(batch, draws)
        penalty = weight * sigma_penalty(*outputs)
        torch.testing.assert_close(loss, without + penalty)
        assert torch.equal(errors, plain.loss_and_errors(batch, draws)[1])
    agent.online.zero_grad()
    agent.set_penalty_weight(None)
    agent.loss_and_errors(batch, draws)[0].backward()
    sigma = outputs[0].weight_sigma
    before = sigma.grad.clone()
    agent.online.zero_grad()
    agent.set_penalty_weight(200.0)
    agent.loss_and_errors(batch, draws)[0].backward()
    numbers = sum(one.numel() for layer in outputs for one in noisynet.sigma_parameters(layer))
    expected = torch.full_like(before, 4.0 / numbers)
    torch.testing.assert_close(sigma.grad - before, expected, rtol=1e-3, atol=1e-6)


def test_pqn_has_the_penalty_too_and_buffers_that_stay_see_a_new_weight() -> None:
    options = {"sigma_penalty": 1.0, "penalty_high": 100.0}
    assert isinstance(make_agent("pqn-cartpole", **options), ParallelQLearning)
    one, other = (make_agent(noise_target=0.05, **options) for _ in range(2))
    static = StaticUpdates(other)
    for number, mean_return in enumerate((None, 50.0, 100.0)):
        for agent in (one, other):
            agent.act(observations(number), 32 * number, FIRST)
            agent.set_penalty_weight(mean_return)
        learned = one.update(make_batch())
        static.update(make_batch())
        assert static.losses() == [learned.loss]
    assert scale(one.online) == scale(other.online) != 1.0


@pytest.mark.parametrize("preset", ["cartpole", "pqn-cartpole", "cartpole-noisy-a2c"])
def test_sigma_that_is_not_learned_stays(preset: str) -> None:
    agent = make_agent(preset, learned_sigma=False, sigma0=0.4)
    sigmas = noisynet.sigma_parameters(agent.network)
    assert not any(one.requires_grad for one in sigmas)
    if not isinstance(agent, QLearning):
        return
    before = [one.clone() for one in agent.online.parameters()]
    agent.update(make_batch())
    for parameter, former in zip(agent.online.parameters(), before, strict=True):
        same = torch.equal(parameter, former)
        assert same is (not parameter.requires_grad)


def test_a_run_keeps_its_scale_for_evaluation_and_resumption(tmp_path: Path) -> None:
    chosen = config.load(
        "cartpole",
        {
            "steps": 500, "warmup_steps": 100, "batch_size": 16, "log_every": 10,
            "checkpoint_every": 250, "device": "cpu", "precision": "float32", "threads": 1,
            "noise_target": 0.2, "noise_target_every": 8, "learning_rate_steps": 500,
        },
    )  # fmt: skip
    whole = start(chosen, tmp_path / "whole").folder
    half = start(chosen.replaced(steps=250), tmp_path / "half").folder
    text = (half / "config.yaml").read_text()
    (half / "config.yaml").write_text(text.replace("steps: 250", "steps: 500", 1))
    resume(half)
    lines = [
        [
            {tag: value for tag, value in line.items() if not tag.startswith("time/")}
            for line in read_metrics(path)
        ]
        for path in (whole, half)
    ]
    assert lines[0] == lines[1]
    scales = [line["noise/scale"] for line in lines[0] if "noise/scale" in line]
    assert len(set(scales)) > 5
    saved = checkpoint.read_newest(whole / "checkpoints")
    assert saved is not None
    kept = float(saved.arrays["noise.scale"][0])
    assert scale(TrainedAgent.load(whole)._agent.network) == kept != 1.0
    assert open_run(whole).config.exploration.noise_target == 0.2


@pytest.mark.slow
def test_a_target_is_held_over_a_training_on_cartpole(tmp_path: Path) -> None:
    chosen = config.load(
        "cartpole", {"seed": 0, "noise_target": 0.05, "steps": 20_000, "log_every": 10}
    )
    run = start(chosen, tmp_path / "run").folder
    shares = np.array(
        [
            (line["step"], line["noise/effective_epsilon"])
            for line in read_metrics(run)
            if "noise/effective_epsilon" in line
        ]
    )
    after = shares[shares[:, 0] > 2 * chosen.learning.warmup_steps, 1]
    assert float(after.mean()) == pytest.approx(0.05, rel=0.2)
    # Every tenth of the training, over some 45 figures of 8 draws and 8 observations each.
    parts = [float(part.mean()) for part in np.array_split(after, 10)]
    assert min(parts) > 0.03
    assert max(parts) < 0.08
