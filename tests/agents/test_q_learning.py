"""The value-based agent: its loss of distributions against a slow one, its draws, its state."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from noisynet import Draw, held, noisy_layers
from noisynet.agents import LinearEpsilon, LossNotFinite, QLearning, adam, losses
from noisynet.agents.value_kinds import Predictions, value_kind
from noisynet.assemble.agents import step_size
from noisynet.networks import NoiseSettings, build_q_network
from noisynet.replay import Batch
from noisynet.runs import config

from .small_agents import ACTIONS, SHAPE, built, make_agent, make_batch, settings, slow_layer

FIRST = np.zeros(4, bool)


def slow_layers(
    weights: dict[str, np.ndarray], noise: Draw | None, observation: np.ndarray, streams: list[str]
) -> dict[str, np.ndarray]:
    """Give each stream's outputs, (B, outputs), in float64."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in streams}
    for row in observation:
        features = np.maximum(slow_layer(weights, noise, "torso.layers.0", row), 0)
        for name in streams:
            hidden = np.maximum(slow_layer(weights, noise, f"head.{name}.0", features), 0)
            found[name].append(slow_layer(weights, noise, f"head.{name}.2", hidden))
    return {name: np.array(rows) for name, rows in found.items()}


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("dueling", [True, False])
@pytest.mark.parametrize("exploration", ["noise", "epsilon"])
def test_the_loss_of_distributions_is_the_paper_s(
    double: bool, dueling: bool, exploration: str
) -> None:
    atoms, low, high = 11, -3.0, 3.0
    agent = make_agent(
        double=double,
        dueling=dueling,
        exploration=exploration,
        atoms=atoms,
        value_min=low,
        value_max=high,
    )
    with torch.no_grad():
        for parameter in agent.target.parameters():
            parameter.add_(0.01)
    importance = np.linspace(0.2, 1.0, 16).astype(np.float32)
    batch = replace(make_batch(), weights=importance)
    draws = agent.draws()
    weights = {
        name: {key: value.double().numpy() for key, value in net.state_dict().items()}
        for name, net in (("online", agent.online), ("target", agent.target))
    }

    def probabilities(net: str, noise: Draw | None, observation: np.ndarray) -> np.ndarray:
        streams = ["advantage", "value"] if dueling else ["advantage"]
        found = slow_layers(weights[net], noise, observation, streams)
        logits = found["advantage"].reshape(-1, ACTIONS, atoms)
        if dueling:
            logits = found["value"][:, None] + logits - logits.mean(1, keepdims=True)
        return softmax(logits)

    support = np.linspace(low, high, atoms)
    gap = support[1] - support[0]
    online, target, choice = draws
    target_t = probabilities("target", target, batch.observation_t)
    choice_t = probabilities("online", choice, batch.observation_t) if double else target_t
    prediction_tm1 = probabilities("online", online, batch.observation_tm1)
    total, divergences = 0.0, []
    for row, action in enumerate(batch.action_tm1):
        best = (choice_t[row] @ support).argmax()
        wanted = np.zeros(atoms)
        for atom in range(atoms):
            moved = batch.return_t[row] + batch.discount_t[row] * support[atom]
            place = (min(max(moved, low), high) - low) / gap
            for neighbour in range(atoms):
                share = max(0.0, 1 - abs(place - neighbour))
                wanted[neighbour] += share * target_t[row, best, atom]
        positive = wanted > 0
        ratio = wanted[positive] / prediction_tm1[row, action][positive]
        divergences.append(float(wanted[positive] @ np.log(ratio)))
        total += importance[row] * divergences[-1]
    loss, errors = agent.loss_and_errors(batch, draws)
    assert float(loss.detach()) == pytest.approx(total / 16, rel=1e-4)
    np.testing.assert_allclose(errors.numpy(), divergences, rtol=1e-3, atol=1e-6)


def test_a_divergence_as_error_is_not_below_0_by_rounding() -> None:
    network = build_q_network(SHAPE, ACTIONS, support=torch.linspace(-1, 1, 5))
    logits = torch.randn(256, ACTIONS, 5, generator=torch.Generator().manual_seed(0))
    batch = make_batch(size=256).to("cpu")
    # The target is the prediction itself.
    batch = replace(batch, return_t=torch.zeros(256), discount_t=torch.ones(256))
    chosen = torch.nn.functional.one_hot(batch.action_tm1, ACTIONS)
    kind = value_kind(network.head, losses.huber, None)
    found, errors = kind.losses_and_errors(batch, Predictions(logits, logits, chosen))
    assert found.min() < 0 <= errors.min()


def test_an_update_tells_each_transition_s_error_and_weighs_its_loss() -> None:
    agent = make_agent(loss="squared")
    batch, draws = make_batch(), agent.draws()
    plain, errors = agent.loss_and_errors(batch, draws)
    assert float(plain.detach()) == pytest.approx(float((0.5 * errors**2).mean()), rel=1e-5)
    batch = replace(batch, weights=np.arange(16, dtype=np.float32))
    weighed, same = agent.loss_and_errors(batch, draws)
    assert torch.equal(errors, same)
    expected = float((torch.arange(16) * 0.5 * errors**2).mean())
    assert float(weighed.detach()) == pytest.approx(expected, rel=1e-5)
    learned = agent.update(batch)
    assert learned.errors.shape == (16,)
    assert (learned.errors >= 0).all()


@pytest.mark.parametrize(
    ("noise_in", "noisy"),
    [
        ("last", ["head.advantage.2", "head.value.2"]),
        ("head", ["head.advantage.0", "head.advantage.2", "head.value.0", "head.value.2"]),
        (
            "all",
            [
                "head.advantage.0",
                "head.advantage.2",
                "head.value.0",
                "head.value.2",
                "torso.layers.0",
            ],
        ),
    ],
)
def test_noise_goes_where_the_config_says(noise_in: str, noisy: list[str]) -> None:
    agent = make_agent(noise_in=noise_in, dueling=True)
    assert sorted(noisy_layers(agent.online)) == noisy
    assert sorted(noisy_layers(agent.target)) == noisy
    before = {
        name: layer.weight_sigma.clone() for name, layer in noisy_layers(agent.online).items()
    }
    agent.update(make_batch())
    for name, layer in noisy_layers(agent.online).items():
        assert not torch.equal(layer.weight_sigma, before[name]), name


def test_without_a_draw_for_the_choice_it_is_the_online_net_s() -> None:
    agent = make_agent(choice_draw=False)
    online, target, choice = agent.draws()
    assert choice is online
    assert target is not online


@pytest.mark.parametrize("centred", [True, False])
def test_rmsprop_takes_the_step_of_its_formula(centred: bool) -> None:
    chosen = settings(
        optimizer="rmsprop", learning_rate=0.01, max_gradient_norm=1e9, rmsprop_decay=0.9,
        rmsprop_epsilon=0.1, rmsprop_centred=centred,
    )  # fmt: skip
    agent = built(chosen)
    parameter = agent.online.head.q[2].weight  # type: ignore[index]
    before = parameter.detach().clone()
    agent.update(make_batch())
    gradient = parameter.grad
    assert gradient is not None
    square, mean = 0.1 * gradient**2, 0.1 * gradient
    root = (square - mean**2 if centred else square).sqrt()
    torch.testing.assert_close(parameter.detach(), before - 0.01 * gradient / (root + 0.1))
    arrays, plain = agent.state()
    other = built(chosen)
    other.restore(arrays, plain)
    assert agent.update(make_batch(seed=1)).loss == other.update(make_batch(seed=1)).loss
    for one, two in zip(agent.online.parameters(), other.online.parameters(), strict=True):
        assert torch.equal(one, two)


def test_online_target_and_choice_each_have_a_draw_of_their_own() -> None:
    agent = make_agent()
    acting = held(agent.online)
    first, second = agent.draws(), agent.draws()
    flats = [drawn.flats[0] for drawn in (*first, *second) if drawn is not None]
    assert acting is not None
    flats += list(acting.flats[0].unbind(0)) if acting.flats[0].ndim == 2 else []
    assert len(flats) >= 6
    for index, one in enumerate(flats):
        for other in flats[index + 1 :]:
            assert one.shape != other.shape or not torch.isclose(one, other).any()


def test_an_update_redraws_the_acting_noise_and_moves_every_sigma() -> None:
    agent = make_agent()
    before = held(agent.online)
    sigmas = {
        name: layer.weight_sigma.detach().clone()
        for name, layer in noisy_layers(agent.online).items()
    }
    agent.update(make_batch())
    after = held(agent.online)
    assert before is not None
    assert after is not None
    assert all(not torch.equal(*pair) for pair in zip(before.flats, after.flats, strict=True))
    for name, layer in noisy_layers(agent.online).items():
        assert not torch.equal(layer.weight_sigma, sigmas[name]), name


def test_each_environment_acts_under_its_own_noise() -> None:
    agent = make_agent(environments=4)
    same = np.ones((4, *SHAPE), np.float32)
    with torch.no_grad():
        values = agent.online(torch.from_numpy(same))
    assert len({tuple(row.tolist()) for row in values}) == 4


def test_copying_to_the_target_copies_mu_and_sigma_and_never_noise() -> None:
    agent = make_agent(environments=4)
    agent.update(make_batch())
    agent.copy_to_target()
    online, target = agent.online.state_dict(), agent.target.state_dict()
    assert all(torch.equal(online[name], target[name]) for name in online)
    assert not any("noise" in name or "epsilon" in name for name in online)
    observation = torch.from_numpy(make_batch().observation_t[:4])
    with torch.no_grad():
        assert not torch.equal(agent.online(observation), agent.target(observation))


def test_warmup_acts_uniformly_and_epsilon_only_where_it_is_asked_for() -> None:
    agent = make_agent(environments=4)
    observation = np.zeros((4, *SHAPE), np.float32)
    random = np.concatenate([agent.act(observation, step=0, first=FIRST) for _ in range(300)])
    counts = np.bincount(random, minlength=ACTIONS)
    # Five standard errors of a binomial count.
    expected = len(random) / ACTIONS
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected * (1 - 1 / ACTIONS))
    assert agent.epsilon is None
    epsilon = make_agent(exploration="epsilon", epsilon_end=0.25).epsilon
    assert epsilon is not None
    assert epsilon(10**9) == 0.25
    late = agent.act(observation, step=agent.warmup_steps, first=FIRST)
    assert (late == agent.greedy(observation)).all()


def test_plain_agents_have_no_noise_and_both_has_noise_and_epsilon() -> None:
    assert noisy_layers(make_agent(exploration="epsilon").online) == {}
    assert noisy_layers(make_agent(exploration="none").online) == {}
    both = make_agent(exploration="both")
    assert isinstance(both.epsilon, LinearEpsilon)
    assert list(noisy_layers(both.online)) == ["head.q.0", "head.q.2"]


def test_state_and_restore_go_on_bit_for_bit() -> None:
    agent = make_agent(environments=4)
    for seed in range(3):
        agent.update(make_batch(seed=seed))
    arrays, plain = agent.state()
    arrays = {name: array.copy() for name, array in arrays.items()}
    other = make_agent(seed=99, environments=4)
    other.restore(arrays, plain)
    observation = make_batch(size=4).observation_t
    for seed in range(3, 6):
        assert agent.update(make_batch(seed=seed)).loss == other.update(make_batch(seed=seed)).loss
        for step in (0, 10**6):
            assert (
                agent.act(observation, step, first=FIRST)
                == other.act(observation, step, first=FIRST)
            ).all()
    for name, value in agent.online.state_dict().items():
        assert torch.equal(value, other.online.state_dict()[name]), name


def test_restored_moments_meet_the_weights_that_they_belong_to() -> None:
    # Channels-last convolutions: restored in another memory layout, fused Adam would mix them up.
    overrides = {
        "device": "cpu", "precision": "float32", "threads": 1, "head_hidden": 8, "environments": 2,
        "frame_height": 36, "frame_width": 36,
    }  # fmt: skip
    chosen = config.load("pong", overrides)
    generator = np.random.Generator(np.random.PCG64(0))
    frames = generator.integers(0, 256, size=(2, 4, 4, 36, 36), dtype=np.uint8)
    ones = np.ones(4, np.float32)
    batch = Batch(
        observation_tm1=frames[0],
        action_tm1=np.arange(4),
        return_t=ones,
        discount_t=np.float32(0.9) * ones,
        observation_t=frames[1],
    )
    agent, other = (built(chosen, (4, 36, 36), 6) for _ in range(2))
    agent.update(batch)
    arrays, plain = agent.state()
    other.restore({name: array.copy() for name, array in arrays.items()}, plain)
    assert agent.update(batch).loss == other.update(batch).loss
    for name, value in agent.online.state_dict().items():
        assert torch.equal(value, other.online.state_dict()[name]), name


def test_before_the_first_update_the_noise_is_redrawn_at_every_action() -> None:
    agent = make_agent(environments=4)
    observation = np.ones((4, *SHAPE), np.float32)
    draws = []
    for _ in range(3):
        agent.act(observation, step=10**6, first=FIRST)
        drawn = held(agent.online)
        assert drawn is not None
        draws.append(drawn.flats[0])
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[1], draws[2])
    agent.update(make_batch())
    agent.act(observation, step=10**6, first=FIRST)
    first = held(agent.online)
    agent.act(observation, step=10**6, first=FIRST)
    second = held(agent.online)
    assert first is not None
    assert second is not None
    assert torch.equal(first.flats[0], second.flats[0])


def test_the_learning_rate_falls_linearly_where_it_is_asked_to() -> None:
    chosen = settings(
        learning_rate=1e-2, final_learning_rate=1e-3, steps=1200, warmup_steps=200, update_every=100
    )
    agent, size = built(chosen), step_size(chosen)
    rates = []
    for seed in range(12):
        rates.append(size(100 * agent.updates))
        agent.update(make_batch(seed=seed), rates[-1])
        assert agent.optimizer.param_groups[0]["lr"] == rates[-1]
    assert rates == pytest.approx([1e-2 - 9e-4 * done for done in range(11)] + [1e-3])
    agent.update(make_batch())
    assert agent.optimizer.param_groups[0]["lr"] == rates[-1]
    constant = step_size(settings(final_learning_rate=None))
    assert [constant(step) for step in (0, 10**9)] == [1e-3, 1e-3]
    sooner = step_size(
        settings(
            learning_rate=1e-2, final_learning_rate=0.0, steps=10_000, learning_rate_steps=1400,
            warmup_steps=1000, update_every=100,
        )
    )  # fmt: skip
    for done, rate in enumerate([1e-2, 7.5e-3, 5e-3, 2.5e-3, 0, 0]):
        assert sooner(100 * done) == pytest.approx(rate)


def test_a_loss_or_gradient_that_is_not_finite_leaves_the_parameters_alone() -> None:
    agent, batch = make_agent(), make_batch()
    before = {name: value.clone() for name, value in agent.online.state_dict().items()}
    batch.return_t[3] = np.nan
    with pytest.raises(LossNotFinite, match="loss became nan at update 1"):
        agent.update(batch)
    next(agent.online.parameters()).register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(LossNotFinite, match="gradient became nan"):
        agent.update(make_batch())
    assert all(
        torch.equal(value, before[name]) for name, value in agent.online.state_dict().items()
    )
    assert agent.is_finite()
    assert agent.updates == 0


def test_the_same_seed_builds_the_same_network_and_another_seed_another() -> None:
    one, same, other = make_agent(seed=1), make_agent(seed=1), make_agent(seed=2)
    first = next(one.online.parameters())
    assert torch.equal(first, next(same.online.parameters()))
    assert not torch.equal(first, next(other.online.parameters()))


def test_bfloat16_gives_nearly_the_same_loss() -> None:
    agent, half = make_agent(), make_agent(precision="bfloat16")
    batch, draws = make_batch(), agent.draws()
    exact, rough = (float(one.loss_and_errors(batch, draws)[0].detach()) for one in (agent, half))
    # bfloat16 keeps 8 bits: 2⁻⁸ relative for each product, a few layers deep.
    assert rough == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("exploration", ["noise", "epsilon"])
@pytest.mark.parametrize("double", [True, False])
def test_every_parameter_has_a_gradient_in_bfloat16(double: bool, exploration: str) -> None:
    """Also with `double`, where the online net runs under no_grad before it runs with gradients."""
    agent = make_agent(precision="bfloat16", double=double, exploration=exploration)
    loss, _ = agent.loss_and_errors(make_batch())
    loss.backward()
    without = [
        name
        for name, one in agent.online.named_parameters()
        if one.grad is None or not one.grad.any()
    ]
    assert without == []


def test_an_agent_wants_its_device_and_precision_chosen() -> None:
    with pytest.raises(ValueError, match="expected what was chosen"):
        make_agent(precision="auto")


def test_an_agent_built_by_hand_is_the_one_of_the_config() -> None:
    chosen = settings(
        environments=4, dueling=True, exploration="both", epsilon_end=0.2, epsilon_steps=500,
        redraw="episode", sigma0=0.3, batch_size=4, warmup_steps=5, seed=7, torso_hidden=[8],
        head_hidden=6,
    )  # fmt: skip
    learning = chosen.learning
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(chosen.training.stream("network"))
        network = build_q_network(
            SHAPE,
            ACTIONS,
            torso_hidden=[8],
            head_hidden=6,
            dueling=True,
            noise=NoiseSettings(sigma0=0.3),
        )
    by_hand = QLearning(
        network,
        adam(
            network.parameters(),
            learning_rate=learning.learning_rate,
            epsilon=learning.adam_epsilon,
        ),
        actions=ACTIONS,
        environments=4,
        max_gradient_norm=learning.max_gradient_norm,
        redraw="episode",
        epsilon=LinearEpsilon(chosen.exploration.epsilon_start, 0.2, 500, begin=5),
        warmup_steps=5,
        seed=7,
    )
    agents = (by_hand, built(chosen))
    observation, first = make_batch(size=4).observation_t, np.array([True, False, False, False])
    for number in range(20):
        acted = [agent.act(observation, 40 * number, first) for agent in agents]
        assert np.array_equal(*acted)
        learned = [agent.update(make_batch(seed=number)) for agent in agents]
        assert learned[0].loss == learned[1].loss
        assert np.array_equal(learned[0].errors, learned[1].errors)
    (arrays, plain), (others, other_plain) = (agent.state() for agent in agents)
    assert plain == other_plain
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        assert np.array_equal(array, others[name]), name


def test_noise_of_a_replay_is_not_redrawn_by_rollouts() -> None:
    network = build_q_network(SHAPE, ACTIONS, noise=NoiseSettings())
    with pytest.raises(ValueError, match="redraw: got rollout, expected step, update or episode"):
        QLearning(
            network,
            adam(network.parameters()),
            actions=ACTIONS,
            environments=4,
            redraw="rollout",
        )


def test_a_batch_of_tensors_teaches_what_the_same_arrays_do() -> None:
    agent, other = make_agent(), make_agent()
    batch = make_batch()
    assert agent.update(batch).loss == other.update(batch.to("cpu")).loss
    for name, value in agent.online.state_dict().items():
        assert torch.equal(value, other.online.state_dict()[name]), name


def test_an_agent_from_another_kind_of_device_goes_on_with_draws_of_its_own() -> None:
    """A generator's state on a GPU has 16 bytes; on the CPU it can only be a seed."""
    arrays, plain = built(settings()).state()
    names = [name for name in arrays if name.startswith("generator.")]
    assert len(names) == 2
    agents = [built(settings()) for _ in range(3)]
    for agent, begins in zip(agents, (0, 0, 1), strict=True):
        kept = {name: np.arange(begins + 9, begins + 25, dtype=np.uint8) for name in names}
        agent.restore({**arrays, **kept}, plain)
    losses = [agent.update(make_batch()).loss for agent in agents]
    assert losses[0] == losses[1] != losses[2]
    with pytest.raises(RuntimeError, match="state size"):
        agents[0].restore({**arrays, names[0]: np.zeros(7, np.uint8)}, plain)
