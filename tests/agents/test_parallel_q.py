"""PQN: λ-returns, which draw does what, and minibatches that are each taken once."""

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from noisynet.agents import ActingPass, ParallelQLearning, Rollout, losses
from noisynet.agents.exploration import LearnedNoise
from noisynet.agents.prepared_rollout import Minibatch, PreparedRollout
from noisynet.assemble import build_agent
from noisynet.layers import draw, held, mean_weights, using
from noisynet.runs import Config, config

STEPS, ENVIRONMENTS, ACTIONS = 6, 4, 3
SMALL = {
    "environments": ENVIRONMENTS, "rollout_steps": STEPS, "minibatches": 3, "epochs": 2,
    "torso_hidden": [8], "head_hidden": 7, "device": "cpu", "precision": "float32", "sigma0": 0.5,
    "noise_in": "head", "redraw": "update",
}  # fmt: skip


def settings(preset: str = "pqn-cartpole", **overrides: Any) -> Config:
    if preset == "pqn-cartpole-epsilon":
        overrides = {"sigma0": None, "noise_in": None, "redraw": None, **overrides}
    values = {name: value for name, value in {**SMALL, **overrides}.items() if value is not None}
    return config.load(preset, values)


def agent_of(chosen: Config, shape: tuple[int, ...] = (5,)) -> ParallelQLearning:
    agent = build_agent(chosen, shape, ACTIONS)
    assert isinstance(agent, ParallelQLearning)
    return agent


def played(
    agent: ParallelQLearning, seed: int = 0, shape: tuple[int, ...] = (5,)
) -> tuple[Rollout, list[ActingPass]]:
    """Return a rollout of random observations that the agent acted on, and what it saw."""
    generator = np.random.default_rng(seed)
    observation = generator.normal(size=(STEPS + 1, ENVIRONMENTS, *shape)).astype(np.float32)
    first = np.zeros((STEPS + 1, ENVIRONMENTS), bool)
    actions: list[np.ndarray] = []
    passes: list[ActingPass] = []
    for t in range(STEPS):
        actions.append(agent.act(observation[t], t, first[t]))
        assert agent.acting_pass is not None
        passes.append(agent.acting_pass)
    ended = np.zeros((3, STEPS, ENVIRONMENTS), bool)
    ended[0, 1, 0] = True  # terminated, and the step after restarts it
    ended[2, 2, 0] = True
    ended[1, 3, 1] = True  # truncated
    ended[2, 4, 1] = True
    rollout = Rollout.of_steps(
        observation=observation,
        first=first,
        action=np.stack(actions),
        reward=generator.normal(size=(STEPS, ENVIRONMENTS)).astype(np.float32),
        terminated=ended[0],
        truncated=ended[1],
        ignored=ended[2],
        discount=0.9,
    )
    return rollout, passes


def test_lambda_returns_by_hand() -> None:
    """γ = ½, λ = ½. One game goes on to the end; one terminates; one is truncated."""
    reward = torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [4.0, 4.0, 4.0]])
    discount = torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.5]])
    trace = torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.0, 0.0], [0.5, 0.5, 0.5]])
    value = torch.tensor([[9.0, 9.0, 9.0], [8.0, 8.0, 8.0], [4.0, 4.0, 4.0], [2.0, 2.0, 2.0]])
    expected = [
        # G_2 = 4 + ½ · 2; the last step bootstraps from V alone.
        # Goes on: G_1 = 2 + ½ (½ · 4 + ½ · 5) = 4.25, G_0 = 1 + ½ (½ · 8 + ½ · 4.25) = 4.0625.
        # Terminated: G_1 = 2, G_0 = 1 + ½ (4 + 1) = 3.5.
        # Truncated: G_1 = 2 + ½ · 4 = 4 from its own last observation, G_0 = 1 + ½ (4 + 2) = 4.
        [4.0625, 3.5, 4.0],
        [4.25, 2.0, 4.0],
        [5.0, 5.0, 5.0],
    ]
    assert losses.lambda_return(reward, discount, trace, value).tolist() == expected


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_lambda_returns_are_advantages_and_values(seed: int, trace: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    reward, discount = torch.rand(2, 5, 3, generator=generator, dtype=torch.float64)
    value = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    goes_on = torch.rand(5, 3, generator=generator) < 0.8
    arguments = (reward, discount, trace * goes_on.double(), value)
    expected = losses.generalised_advantage(*arguments) + value[:-1]
    assert torch.allclose(losses.lambda_return(*arguments), expected)


# Which draw does what


@pytest.mark.parametrize("shape", [(5,), (2, 6, 6)])
def test_targets_are_those_of_the_acting_pass_whoever_computed_them(shape: tuple[int, ...]) -> None:
    """Noisy convolutions flatten steps and environments: they need one step at a time."""
    agent = agent_of(settings(noise_in="all", torso_hidden=None), shape)
    rollout, passes = played(agent, shape=shape)
    other = copy.deepcopy(agent)
    agent.begin(rollout, passes)
    other.begin(rollout)
    for one in (agent, other):
        assert one._rollout is not None
    assert torch.allclose(agent._rollout.target_t, other._rollout.target_t, atol=1e-6)  # pyright: ignore[reportOptionalMemberAccess]
    assert torch.equal(agent._rollout.prepared, other._rollout.prepared)  # pyright: ignore[reportOptionalMemberAccess]


def test_the_acting_draw_is_held_over_a_rollout_and_redrawn_before_the_next() -> None:
    agent = agent_of(settings())
    before = held(agent.network)
    assert before is not None
    rollout, passes = played(agent)
    still = held(agent.network)
    assert still is not None
    assert all(torch.equal(a, b) for a, b in zip(before.flats, still.flats, strict=True))
    agent.begin(rollout, passes)
    after = held(agent.network)
    assert after is not None
    assert not any(torch.equal(a, b) for a, b in zip(before.flats, after.flats, strict=True))
    while agent.updates_left:
        agent.update()
        kept = held(agent.network)
        assert kept is not None
        assert all(torch.equal(a, b) for a, b in zip(kept.flats, after.flats, strict=True))


def test_learning_under_the_draw_that_acted_sees_the_values_that_acted() -> None:
    agent = agent_of(settings(learning_draw="acted", minibatches=1))
    rollout, passes = played(agent)
    agent.begin(rollout, passes)
    _, q = agent.loss_and_q()
    value = torch.stack([one.value for one in passes])[torch.from_numpy(rollout.taken_t)]
    assert float(q) == pytest.approx(float(value.mean()), abs=1e-6)  # every action was greedy


def test_a_fresh_draw_for_each_minibatch_is_another_one() -> None:
    agent = agent_of(settings(minibatches=1))
    rollout, passes = played(agent)
    agent.begin(rollout, passes)
    assert len({float(agent.loss_and_q()[1]) for _ in range(4)}) == 4
    agent = agent_of(settings("pqn-cartpole-epsilon", minibatches=1))
    rollout, passes = played(agent)
    agent.begin(rollout, passes)
    assert len({float(agent.loss_and_q()[1]) for _ in range(4)}) == 1


def test_a_draw_for_each_step_of_a_minibatch_is_its_own() -> None:
    """Of the same observation, as many Q as steps; each is that of its row of the draw."""
    agent = agent_of(settings(learning_draw="rows", minibatches=5))
    rollout, passes = played(agent)
    agent.begin(rollout, passes)
    state = agent._learning.get_state()
    assert agent.current.longest == 5  # of 24 steps
    drawn = draw(agent.network, rows=5, generator=agent._learning)
    later = agent._learning.get_state()
    agent._learning.set_state(state)
    steps = 4  # a shorter one takes the first rows
    one = agent.current.prepared[0, 0]
    minibatch = Minibatch(
        observation=one.expand(steps, *one.shape),
        action=torch.zeros(steps, dtype=torch.int64),
        target=torch.arange(steps, dtype=torch.float32),
        acted=None,
    )
    loss, q = agent.loss_and_q(minibatch)
    assert torch.equal(agent._learning.get_state(), later)
    slow = copy.deepcopy(agent.network).double()
    of_rows = []
    for row in range(steps):
        with using(slow, drawn[row : row + 1].to(torch.float64)):
            of_rows.append(slow(one.double()[None])[0, 0].detach())
    assert len({float(value) for value in of_rows}) == steps
    expected = torch.stack(of_rows)
    assert float(q) == pytest.approx(float(expected.mean()), rel=1e-5)
    error = minibatch.target.double() - expected
    assert float(loss.detach()) == pytest.approx(float(0.5 * error.square().mean()), rel=1e-5)


@pytest.mark.parametrize("target_draw", ["acted", "means", "fresh"])
def test_the_loss_is_the_papers_from_which_ever_draw(target_draw: str) -> None:
    """Against a slow reference in float64, step by step."""
    chosen = settings(learning_draw="acted", target_draw=target_draw, minibatches=1)
    agent = agent_of(chosen)
    rollout, passes = played(agent)
    acted = held(agent.network)
    assert acted is not None
    slow = copy.deepcopy(agent.network).double()
    of_targets = acted
    if target_draw == "fresh":
        of_targets = copy.deepcopy(agent)._targets_draw(acted)
        assert of_targets is not None
        assert of_targets.rows == ENVIRONMENTS
    agent.begin(rollout, passes)

    def q_of(observation: np.ndarray, drawn: Any) -> torch.Tensor:
        batch = torch.from_numpy(observation).double()
        if drawn is None:
            with mean_weights(slow):
                return slow(batch).detach()
        with using(slow, drawn.to(torch.float64)):
            return slow(batch).detach()

    value = np.stack(
        [
            q_of(one, None if target_draw == "means" else of_targets).amax(-1).numpy()
            for one in rollout.observation
        ]
    )
    errors: list[float] = []
    for environment in range(ENVIRONMENTS):
        following = value[-1, environment]
        for t in reversed(range(STEPS)):
            trace = chosen.rollouts.return_lambda * rollout.goes_on_t[t, environment]
            bootstrap = (1 - trace) * value[t + 1, environment] + trace * following
            following = (
                rollout.reward_t[t, environment] + rollout.discount_t[t, environment] * bootstrap
            )
            q = q_of(rollout.observation[t], acted)[environment, rollout.action_t[t, environment]]
            if rollout.taken_t[t, environment]:
                errors.append(following - float(q))
    loss, _ = agent.loss_and_q()
    assert float(loss.detach()) == pytest.approx(0.5 * float(np.mean(np.square(errors))), rel=1e-5)


# Minibatches


def test_each_step_that_was_taken_is_learned_once_in_each_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = agent_of(settings())
    rollout, passes = played(agent)
    sizes: list[int] = []
    learned: list[tuple[float, ...]] = []
    forward = agent.network.forward

    def watched(observation: torch.Tensor) -> torch.Tensor:
        sizes.append(len(observation))
        learned.extend(tuple(row) for row in observation.tolist())
        return forward(observation)

    agent.begin(rollout, passes)
    monkeypatch.setattr(agent.network, "forward", watched)
    assert agent.updates_left == 6
    while agent.updates_left:
        agent.update()
    taken = rollout.observation[:-1][rollout.taken_t]
    assert sizes == [8, 7, 7] * 2  # 22 steps of 24
    assert sorted(learned) == sorted([tuple(row) for row in taken.tolist()] * 2)
    assert learned[:22] != learned[22:]
    assert agent.updates == 6


@pytest.mark.parametrize("with_passes", [True, False])
def test_priorities_learn_a_step_as_often_as_its_error_asks(*, with_passes: bool) -> None:
    """With exponent 1 and a tiny ε: in proportion to |G - V|, in each epoch rounded up or down."""
    agent = agent_of(
        settings(
            prioritised=True, priority_exponent=1.0, priority_epsilon=1e-9, target_draw="acted"
        )
    )
    rollout, passes = played(agent)
    with torch.no_grad():
        value = agent.network(torch.from_numpy(rollout.observation)).amax(-1)
    agent.begin(rollout, passes if with_passes else ())
    current = agent._rollout
    assert current is not None
    error = (current.target_t - value[:-1]).abs().flatten().numpy()
    taken = rollout.taken_t.flatten()
    share = np.where(taken, error, 0) / error[taken].sum() * taken.sum()
    assert current.order.shape == (2, 22)
    for epoch in current.order:
        times = np.bincount(epoch, minlength=STEPS * ENVIRONMENTS)
        assert (times >= np.floor(share - 1e-4)).all()
        assert (times <= np.ceil(share + 1e-4)).all()
        assert (times[~taken] == 0).all()
    assert sorted(current.order[0]) != list(current.order[0])  # shuffled
    while agent.updates_left:
        assert np.isfinite(agent.update().loss)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3))
def test_minibatches_are_numpys_equal_parts_of_each_epochs_order(
    steps: int, parts: int, epochs: int
) -> None:
    order = np.random.default_rng(0).permuted(np.tile(np.arange(steps), (epochs, 1)), axis=1)
    nothing = torch.zeros(0)
    parts = min(parts, steps)
    current = PreparedRollout(None, None, nothing, nothing, order, parts, 0)  # pyright: ignore[reportArgumentType]
    for epoch in range(epochs):
        for expected in np.array_split(order[epoch], parts):
            assert np.array_equal(current.minibatch(), expected)
            current.done += 1


def test_no_minibatch_is_empty_however_few_steps_were_taken() -> None:
    agent = agent_of(settings(minibatches=24))
    rollout, passes = played(agent)
    agent.begin(rollout, passes)
    assert agent.updates_left == 2 * 22
    while agent.updates_left:
        assert np.isfinite(agent.update().loss)
    none = dataclasses.replace(rollout, taken_t=np.zeros_like(rollout.taken_t))
    agent.begin(none, passes)
    assert agent.updates_left == 0


def test_an_update_without_a_rollout_is_refused() -> None:
    agent = agent_of(settings())
    with pytest.raises(ValueError, match="got no rollout"):
        agent.update()
    agent.begin(*played(agent))
    while agent.updates_left:
        agent.update()
    with pytest.raises(ValueError, match="got no rollout"):
        agent.update()


@pytest.mark.parametrize("preset", ["pqn-cartpole", "pqn-cartpole-epsilon"])
def test_what_is_saved_in_the_middle_of_a_rollout_goes_on_as_it_would_have(preset: str) -> None:
    chosen = settings(preset, learning_draw="acted" if preset == "pqn-cartpole" else None)
    agent = agent_of(chosen)
    rollout, passes = played(agent)
    agent.begin(rollout, passes)
    agent.update()
    arrays, plain = copy.deepcopy(agent.state())
    other = agent_of(chosen.replaced(seed=5))
    other.restore(arrays, plain)
    assert other.updates_left == agent.updates_left == 5
    for one in (agent, other):
        while one.updates_left:
            one.update()
        one.begin(*played(one, seed=1))
        one.update()
    for name, array in agent.state()[0].items():
        assert np.array_equal(array, other.state()[0][name]), name
    assert agent.state()[1] == other.state()[1]


@pytest.mark.parametrize("changed", [{"epochs": 4}, {"minibatches": 1}])
def test_a_rollout_is_learned_to_its_end_as_it_was_begun(changed: dict[str, int]) -> None:
    """What may change between two sessions acts from the next rollout on."""
    agent = agent_of(settings())
    agent.begin(*played(agent))
    for _ in range(4):
        agent.update()
    other = agent_of(settings(**changed))
    other.restore(*copy.deepcopy(agent.state()))
    for _ in range(2):
        assert other.update() == agent.update()
    assert other.updates_left == agent.updates_left == 0
    other.begin(*played(other))
    assert other.updates_left == (12 if "epochs" in changed else 2)


def test_noise_that_is_redrawn_by_updates_is_redrawn_after_each() -> None:
    agent = agent_of(settings())
    agent.noise = LearnedNoise(
        agent.network, ENVIRONMENTS, torch.Generator().manual_seed(0), redraw="update"
    )
    agent.begin(*played(agent))
    former = held(agent.network)
    while agent.updates_left:
        agent.update()
        now = held(agent.network)
        assert former is not None
        assert now is not None
        assert not torch.equal(now.flats[0], former.flats[0])
        former = now


def test_epsilon_falls_from_the_first_step_on_and_acts_beside_the_noise() -> None:
    agent = agent_of(
        settings(exploration="both", epsilon_start=1.0, epsilon_end=0.0, epsilon_steps=100)
    )
    observation = np.zeros((ENVIRONMENTS, 5), np.float32)
    none = np.zeros(ENVIRONMENTS, bool)
    early = np.stack([agent.act(observation, 0, none) for _ in range(200)])
    late = np.stack([agent.act(observation, 100, none) for _ in range(20)])
    counts = np.bincount(early.ravel(), minlength=ACTIONS)
    assert counts.min() > 800 / ACTIONS - 4 * 800**0.5 / 2
    assert (late == late[0]).all()  # a held draw for each environment, and nothing else


def test_radam_takes_over_what_adam_kept_and_refuses_what_rmsprop_did() -> None:
    saved = {}
    for optimizer in ("adam", "rmsprop", "radam"):
        agent = agent_of(settings(optimizer=optimizer))
        agent.begin(*played(agent))
        agent.update()
        saved[optimizer] = agent.state()
    for optimizer in ("adam", "radam"):
        other = agent_of(settings(optimizer="radam"))
        other.restore(*saved[optimizer])
        assert isinstance(other.optimizer, torch.optim.RAdam)
        assert other.update().loss > 0
    with pytest.raises(RuntimeError, match=r"optimizer: got .*, RAdam expected exp_avg"):
        agent_of(settings(optimizer="radam")).restore(*saved["rmsprop"])


def test_a_restored_agent_whose_rollout_is_missing_is_refused() -> None:
    agent = agent_of(settings())
    agent.begin(*played(agent))
    arrays, plain = agent.state()
    del arrays["rollout.target_t"]
    with pytest.raises(KeyError):
        agent_of(settings()).restore(arrays, plain)
