"""The actor-critic: its update against a slow one, the draws that it holds, its state."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from noisynet import held, noisy_layers, resample
from noisynet.agents import ActorCritic, LossNotFinite, Rollout, adam, losses
from noisynet.assemble import build_agent
from noisynet.assemble.agents import step_size
from noisynet.networks import NoiseSettings, build_actor_critic_network
from noisynet.runs import Config, config

from .small_agents import slow_layer

SHAPE, ACTIONS, STEPS, ROWS = (4,), 3, 5, 4


def settings(preset: str = "cartpole-noisy-a2c", **overrides: Any) -> Config:
    chosen = {
        "device": "cpu", "precision": "float32", "threads": 1, "environments": ROWS,
        "rollout_steps": STEPS, "torso_hidden": [8], "head_hidden": 7, **overrides,
    }  # fmt: skip
    return config.load(preset, chosen)


def built(chosen: Config, shape: tuple[int, ...] = SHAPE) -> ActorCritic:
    agent = build_agent(chosen, shape, ACTIONS)
    assert isinstance(agent, ActorCritic)
    return agent


def make_agent(preset: str = "cartpole-noisy-a2c", **overrides: Any) -> ActorCritic:
    return built(settings(preset, **overrides))


def play(agent: ActorCritic, seed: int = 0) -> tuple[Rollout, torch.Tensor]:
    """Let an agent act on made-up observations; gives the rollout, and the logits that acted."""
    generator = np.random.Generator(np.random.PCG64(seed))
    observation = generator.normal(size=(STEPS + 1, ROWS, *SHAPE)).astype(np.float32)
    ignored = np.zeros((STEPS, ROWS), bool)
    terminated, truncated = np.zeros_like(ignored), np.zeros_like(ignored)
    terminated[1, 0], truncated[2, 1] = True, True
    ignored[2, 0], ignored[3, 1] = True, True
    first = np.concatenate([np.zeros((1, ROWS), bool), ignored])
    first[0, 2] = True
    logits, actions = [], []
    for t in range(STEPS):
        before = agent._core  # pyright: ignore[reportPrivateUsage]
        logits.append(agent.policy(observation[t], first[t]))
        agent._core = before  # pyright: ignore[reportPrivateUsage]
        actions.append(agent.act(observation[t], 0, first[t]))
    rollout = Rollout.of_steps(
        observation=observation,
        first=first,
        action=np.stack(actions),
        reward=generator.normal(size=(STEPS, ROWS)).astype(np.float32),
        terminated=terminated,
        truncated=truncated,
        ignored=ignored,
        discount=0.9,
    )
    return rollout, torch.stack(logits)


PARTS = [
    {},
    {"noise_kind": "independent"},
    {"draw_per_environment": False},
    {"noise_in": "last"},
    {"lstm_size": 6},
    {"lstm_size": 6, "noise_in": "all"},
]


@pytest.mark.parametrize("parts", PARTS)
def test_learning_sees_the_very_policy_that_acted(parts: dict[str, Any]) -> None:
    agent = make_agent(**parts)
    for seed in range(3):
        rollout, acted = play(agent, seed)
        logits, _ = agent.evaluate(rollout)
        actions = torch.from_numpy(rollout.action_t)
        before = losses.log_probability(acted, actions)
        now = losses.log_probability(logits[:-1], actions).detach()
        assert (now - before).abs().max() < 1e-6
        assert ((now - before).exp() - 1).abs().max() < 1e-6
        agent.update(rollout)


@pytest.mark.parametrize("parts", PARTS)
def test_noise_drawn_in_between_would_show(parts: dict[str, Any]) -> None:
    agent = make_agent(**parts)
    rollout, acted = play(agent)
    resample(agent.network)
    logits, _ = agent.evaluate(rollout)
    assert (logits[:-1] - acted).abs().max() > 1e-3


def test_noise_in_the_convolutions_is_held_over_the_rollout_too() -> None:
    chosen = {
        "device": "cpu", "precision": "float32", "threads": 1, "environments": 2,
        "rollout_steps": 2, "frame_height": 36, "frame_width": 36, "head_hidden": 5,
        "noise_in": "all",
    }  # fmt: skip
    agent = built(config.load("noisy-a2c", chosen), (4, 36, 36))
    assert "torso.convolutions.0" in noisy_layers(agent.network)
    generator = np.random.Generator(np.random.PCG64(0))
    observation = generator.integers(0, 256, size=(3, 2, 4, 36, 36), dtype=np.uint8)
    none = np.zeros((2, 2), bool)
    acted = torch.stack([agent.policy(one, none[0]) for one in observation[:2]])
    rollout = Rollout.of_steps(
        observation=observation,
        first=np.zeros((3, 2), bool),
        action=none.astype(np.int64),
        reward=none.astype(np.float32),
        terminated=none,
        truncated=none,
        ignored=none,
        discount=0.99,
    )
    logits, _ = agent.evaluate(rollout)
    torch.testing.assert_close(logits[:-1], acted, atol=1e-6, rtol=0)


def flats(agent: ActorCritic) -> torch.Tensor:
    drawn = held(agent.network)
    assert drawn is not None
    return torch.cat(drawn.flats, dim=-1)


def test_each_environment_has_a_draw_of_its_own_redrawn_after_each_update() -> None:
    agent = make_agent()
    seen = [flats(agent)]
    assert seen[0].shape[0] == ROWS
    same = np.ones((ROWS, *SHAPE), np.float32)
    none = np.zeros(ROWS, bool)
    assert len({tuple(row.tolist()) for row in agent.policy(same, none)}) == ROWS
    for seed in range(2):
        rollout, _ = play(agent, seed)
        assert torch.equal(flats(agent), seen[-1])
        agent.update(rollout)
        seen.append(flats(agent))
    rows = torch.cat(seen)
    for index, one in enumerate(rows):
        assert not any(torch.isclose(one, other).any() for other in rows[index + 1 :])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("preset", ["cartpole-noisy-a2c", "cartpole-a2c"])
@pytest.mark.parametrize("lstm_size", [0, 6])
@pytest.mark.parametrize("gae_lambda", [1.0, 0.7])
def test_the_loss_is_the_papers(preset: str, lstm_size: int, gae_lambda: float) -> None:
    """Against a slow one in float64: one environment, one step, one layer after the other."""
    chosen = settings(preset, lstm_size=lstm_size, gae_lambda=gae_lambda, value_coefficient=0.3)
    agent = built(chosen)
    bonus = chosen.actor_critic.entropy_bonus
    assert bool(bonus) is (preset == "cartpole-a2c")
    noise = held(agent.network) if agent.noise is not None else None
    weights = {name: value.double().numpy() for name, value in agent.network.state_dict().items()}
    play(agent, seed=7)
    agent.next_rollout()  # so that an LSTM does not begin with zeros
    noise = held(agent.network) if agent.noise is not None else None
    core = agent._core_before  # pyright: ignore[reportPrivateUsage]
    rollout, _ = play(agent)
    taken, policy_loss, value_loss, entropy = 0, 0.0, 0.0, 0.0
    for row in range(ROWS):
        drawn = None if noise is None else noise[row]
        if core is not None:
            hidden, cell = (one[row].double().numpy() for one in core)
        values, policies = [], []
        for t in range(STEPS + 1):
            x = rollout.observation[t, row].astype(np.float64)
            x = np.maximum(slow_layer(weights, drawn, "torso.layers.0", x), 0)
            x = np.maximum(slow_layer(weights, drawn, "hidden", x), 0)
            if core is not None:
                if rollout.first[t, row]:
                    hidden, cell = np.zeros_like(hidden), np.zeros_like(cell)
                gates = (
                    weights["core.cell.weight_ih"] @ x
                    + weights["core.cell.bias_ih"]
                    + weights["core.cell.weight_hh"] @ hidden
                    + weights["core.cell.bias_hh"]
                )
                i, f, g, o = np.split(gates, 4)
                cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
                x = hidden = sigmoid(o) * np.tanh(cell)
            logits = slow_layer(weights, drawn, "head.policy", x)
            values.append(slow_layer(weights, drawn, "head.value", x)[0])
            powers = np.exp(logits - logits.max())
            policies.append(powers / powers.sum())
        # Row 0 terminates at step 1 and row 1 is truncated at step 2; the next step restarts.
        ends = {0: 1, 1: 2}.get(row, STEPS - 1)
        games = [(0, ends), (ends + 2, STEPS - 1)]
        for begin, end in games:
            advantage = 0.0
            for t in range(end, begin - 1, -1):
                terminated = row == 0 and t == 1
                following = 0.0 if terminated else 0.9 * values[t + 1]
                delta = float(rollout.reward_t[t, row]) + following - values[t]
                advantage = delta + (0.9 * gae_lambda * advantage if t < end else 0.0)
                taken += 1
                policy_loss -= advantage * math.log(policies[t][rollout.action_t[t, row]])
                value_loss += advantage**2
                entropy -= float(policies[t] @ np.log(policies[t]))
    assert taken == rollout.taken_t.sum() == STEPS * ROWS - 2
    learned = agent.gradient(rollout)
    assert learned.policy_loss == pytest.approx(policy_loss / taken, rel=1e-4, abs=1e-6)
    assert learned.value_loss == pytest.approx(value_loss / taken, rel=1e-4)
    assert learned.entropy == pytest.approx(entropy / taken, rel=1e-5)
    total = (policy_loss + 0.3 * value_loss - bonus * entropy) / taken
    assert learned.loss == pytest.approx(total, rel=1e-4, abs=1e-6)


def test_there_is_no_entropy_bonus_unless_it_is_asked_for() -> None:
    assert config.load("noisy-a2c").actor_critic.entropy_bonus == 0
    assert config.load("noisy-a3c").actor_critic.entropy_bonus == 0
    plain, paid = make_agent(), make_agent(entropy_bonus=0.1)
    rollout, _ = play(plain)
    without, with_bonus = plain.gradient(rollout), paid.gradient(rollout)
    weight = settings().actor_critic.value_coefficient
    assert without.loss == pytest.approx(without.policy_loss + weight * without.value_loss)
    assert with_bonus.loss == pytest.approx(without.loss - 0.1 * without.entropy, rel=1e-5)


@pytest.mark.parametrize("parts", PARTS)
def test_an_update_moves_every_sigma(parts: dict[str, Any]) -> None:
    agent = make_agent(**parts)
    before = {name: value.clone() for name, value in agent.network.state_dict().items()}
    for seed in range(2):
        agent.update(play(agent, seed)[0])
    sigmas = [name for name in before if name.endswith("_sigma")]
    assert len(sigmas) >= 4
    for name in sigmas:
        assert not torch.equal(agent.network.state_dict()[name], before[name]), name


def test_noise_goes_where_the_config_says() -> None:
    def noisy(**parts: Any) -> list[str]:
        return sorted(noisy_layers(make_agent(lstm_size=5, **parts).network))

    assert noisy() == ["head.policy", "head.value", "hidden"]
    assert noisy(noise_in="last") == ["head.policy", "head.value"]
    everything = ["core.cell", "head.policy", "head.value", "hidden", "torso.layers.0"]
    assert noisy(noise_in="all") == everything
    assert noisy_layers(make_agent("cartpole-a2c").network) == {}


def test_actions_are_drawn_from_the_policy() -> None:
    agent = make_agent("cartpole-a2c")
    observation = np.tile(np.float32([0.3, -1, 2, 0.5]), (ROWS, 1))
    none = np.zeros(ROWS, bool)
    probability = agent.policy(observation, none)[0].softmax(-1).numpy()
    counts = np.zeros(ACTIONS)
    for _ in range(1500):
        counts += np.bincount(agent.act(observation, 0, none), minlength=ACTIONS)
    # Five standard errors of a binomial count.
    error = np.sqrt(counts.sum() * probability * (1 - probability))
    assert (np.abs(counts - counts.sum() * probability) < 5 * error).all()
    assert (agent.greedy(observation) == probability.argmax()).all()


def test_an_lstm_remembers_within_a_game_and_not_across() -> None:
    agent = make_agent("cartpole-a2c", lstm_size=6)
    observation = np.random.default_rng(0).normal(size=(3, ROWS, *SHAPE)).astype(np.float32)
    none, begins = np.zeros(ROWS, bool), np.array([True, False, True, False])
    fresh = agent.policy(observation[0], begins)
    agent.policy(observation[1], none)
    again = agent.policy(observation[0], begins)
    assert torch.equal(fresh[0], again[0])
    assert not torch.isclose(fresh[1], again[1]).all()
    # `begin`, which evaluation uses, is the same reset.
    agent.begin(begins)
    other = agent.policy(observation[0], none)
    assert torch.equal(other[0], fresh[0])
    assert not torch.equal(other[1], again[1])


@pytest.mark.parametrize("parts", [*PARTS, {"optimizer": "rmsprop"}])
def test_state_and_restore_go_on_bit_for_bit(parts: dict[str, Any]) -> None:
    agent = make_agent(**parts)
    for seed in range(3):
        agent.update(play(agent, seed)[0])
    arrays, plain = agent.state()
    arrays = {name: array.copy() for name, array in arrays.items()}
    other = make_agent(seed=99, **parts)
    other.restore(arrays, plain)
    for seed in range(3, 6):
        one, two = play(agent, seed)[0], play(other, seed)[0]
        assert (one.action_t == two.action_t).all()
        assert agent.update(one, 1e-3) == other.update(two, 1e-3)
    for name, value in agent.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name]), name
    assert not any("noise" in name for name in agent.network.state_dict())


def test_the_learning_rate_falls_linearly_over_the_run_s_steps() -> None:
    chosen = settings(learning_rate=1e-2, final_learning_rate=0.0, steps=1000)
    size = step_size(chosen)
    assert [size(step) for step in (0, 250, 1000, 1200)] == pytest.approx([1e-2, 7.5e-3, 0, 0])
    agent = built(chosen)
    assert agent.optimizer.param_groups[0]["lr"] == pytest.approx(1e-2)
    agent.update(play(agent)[0], size(500))
    assert agent.optimizer.param_groups[0]["lr"] == pytest.approx(5e-3)
    sooner = step_size(
        settings(learning_rate=1e-2, final_learning_rate=0.0, learning_rate_steps=200, steps=1000)
    )
    assert [sooner(step) for step in (50, 200, 900)] == pytest.approx([7.5e-3, 0, 0])


def test_a_step_size_replaces_the_optimizer_s_and_none_leaves_it() -> None:
    agent, other = make_agent(optimizer="rmsprop"), make_agent(optimizer="rmsprop")
    before = {name: value.clone() for name, value in agent.network.named_parameters()}
    agent.update(play(agent)[0])
    other.update(play(other)[0], 0.0)
    for name, value in other.network.named_parameters():
        assert torch.equal(value, before[name]), name
    assert not torch.equal(agent.network.head.policy.weight, before["head.policy.weight"])


def test_an_agent_built_by_hand_is_the_one_of_the_config() -> None:
    chosen = settings(entropy_bonus=0.02, gae_lambda=0.9, lstm_size=6, optimizer="adam", sigma0=0.3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(chosen.training.stream("network"))
        network = build_actor_critic_network(
            SHAPE,
            ACTIONS,
            torso_hidden=[8],
            head_hidden=7,
            lstm_size=6,
            noise=NoiseSettings(sigma0=0.3),
        )
    learning = chosen.learning
    by_hand = ActorCritic(
        network,
        adam(
            network.parameters(),
            learning_rate=learning.learning_rate,
            epsilon=learning.adam_epsilon,
        ),
        actions=ACTIONS,
        environments=ROWS,
        gae_lambda=0.9,
        value_coefficient=chosen.actor_critic.value_coefficient,
        entropy_bonus=0.02,
        max_gradient_norm=learning.max_gradient_norm,
        seed=chosen.training.seed,
    )
    of_config = built(chosen)
    for seed in range(3):
        one, other = (agent.update(play(agent, seed)[0]) for agent in (by_hand, of_config))
        assert one == other
    (arrays, plain), (others, other_plain) = by_hand.state(), of_config.state()
    assert plain == other_plain
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        assert np.array_equal(array, others[name]), name


def test_a_loss_or_gradient_that_is_not_finite_leaves_the_parameters_alone() -> None:
    agent = make_agent()
    before = {name: value.clone() for name, value in agent.network.state_dict().items()}
    rollout, _ = play(agent)
    rollout.reward_t[0, 0] = np.inf
    with pytest.raises(LossNotFinite, match="the loss became"):
        agent.update(rollout)
    next(agent.network.parameters()).register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(LossNotFinite, match="gradient became nan"):
        agent.update(play(agent)[0])
    assert all(
        torch.equal(value, before[name]) for name, value in agent.network.state_dict().items()
    )
    assert agent.is_finite()
