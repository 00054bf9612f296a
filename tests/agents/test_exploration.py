"""Exploration: the schedule of ε, its actions, and the noise that is held per environment."""

import numpy as np
import pytest
import torch

from noisynet import draw, held
from noisynet.agents import ParallelQLearning, adam
from noisynet.agents.exploration import LearnedNoise, LinearEpsilon, epsilon_greedy
from noisynet.layers import NoisyLinear
from noisynet.networks import NoiseSettings, build_q_network


def test_epsilon_falls_linearly_from_the_end_of_the_warmup() -> None:
    epsilon = LinearEpsilon(start=1.0, end=0.1, steps=100, begin=50)
    values = [epsilon(step) for step in (0, 50, 100, 150, 10**6)]
    assert values == pytest.approx([1.0, 1.0, 0.55, 0.1, 0.1])


def test_epsilon_ends_where_it_is_told_to() -> None:
    epsilon = LinearEpsilon(start=1.0, end=0.1, steps=100, begin=50, until=400)
    assert [epsilon(step) for step in (100, 399, 400, 10**9)] == pytest.approx([0.55, 0.1, 0, 0])


def test_epsilon_greedy_replaces_the_share_that_it_says() -> None:
    generator = np.random.Generator(np.random.PCG64(0))
    greedy = np.zeros(40_000, np.int64)
    chosen = epsilon_greedy(greedy, actions=4, epsilon=0.2, generator=generator)
    # A random action is another one with probability 3/4; five standard errors.
    share, expected = np.mean(chosen != 0), 0.2 * 3 / 4
    assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / len(greedy))
    assert set(chosen) == {0, 1, 2, 3}
    assert (epsilon_greedy(greedy[:100], 4, 0.0, generator) == 0).all()


def drawn_rows(layer: NoisyLinear) -> torch.Tensor:
    drawn = held(layer)
    assert drawn is not None
    return drawn.flats[0].clone()


def test_learned_noise_is_held_per_environment_and_redrawn_on_demand() -> None:
    layer = NoisyLinear(5, 3)
    noise = LearnedNoise(layer, 4, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(drawn_rows(layer), draw(layer, rows=4, generator=generator).flats[0])
    same = torch.ones(4, 5)
    before = layer(same)
    assert torch.equal(before, layer(same))
    assert len({tuple(row.tolist()) for row in before}) == 4
    noise.redraw()
    assert torch.equal(drawn_rows(layer), draw(layer, rows=4, generator=generator).flats[0])
    after = layer(same)
    assert not torch.isclose(before, after).any(dim=1).all()
    assert len(drawn_rows(layer)) == 4


def test_noise_by_update_changes_at_updates_and_at_every_step_before_the_first() -> None:
    layer = NoisyLinear(5, 3)
    noise = LearnedNoise(layer, 2, torch.Generator().manual_seed(0))
    first = np.zeros(2, bool)
    seen = [drawn_rows(layer)]
    for updates, changes in ((0, True), (0, True), (1, False), (1, False)):
        noise.before_action(first, updates)
        assert torch.equal(drawn_rows(layer), seen[-1]) is not changes
        seen.append(drawn_rows(layer))
    noise.after_update()
    assert not torch.equal(drawn_rows(layer), seen[-1])


def test_noise_by_step_changes_at_every_step_and_at_no_update() -> None:
    layer = NoisyLinear(5, 3)
    noise = LearnedNoise(layer, 2, torch.Generator().manual_seed(0), redraw="step")
    before = drawn_rows(layer)
    noise.before_action(np.zeros(2, bool), updates=7)
    after = drawn_rows(layer)
    assert not torch.equal(before, after)
    noise.after_update()
    assert torch.equal(drawn_rows(layer), after)


def test_noise_by_episode_changes_where_an_episode_begins() -> None:
    layer = NoisyLinear(5, 3)
    noise = LearnedNoise(layer, 3, torch.Generator().manual_seed(0), redraw="episode")
    before = drawn_rows(layer)
    noise.before_action(np.zeros(3, bool), updates=7)
    noise.after_update()
    assert torch.equal(drawn_rows(layer), before)
    noise.before_action(np.array([False, True, False]), updates=7)
    after = drawn_rows(layer)
    changed = [not torch.equal(*pair) for pair in zip(before, after, strict=True)]
    assert changed == [False, True, False]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("redraw", "epsiode"),
        ("loss", "mse"),
        ("learning_draw", "row"),
        ("target_draw", "mean"),
        ("precision", "bf16"),
    ],
)
def test_an_unknown_name_is_refused(option: str, value: str) -> None:
    """Else noise would never be redrawn, or an update would do something else than was meant."""
    network = build_q_network((4,), 2, head_hidden=4, noise=NoiseSettings())

    def act() -> None:
        agent = ParallelQLearning(
            network, adam(network.parameters()), actions=2, environments=1, **{option: value}
        )
        agent.greedy(np.zeros((1, 4), np.float32))

    with pytest.raises(ValueError, match=f"^{option}: got '{value}', expected one of "):
        act()


@pytest.mark.parametrize("redraw", ["step", "update", "episode"])
def test_environments_can_share_one_draw(redraw: str) -> None:
    layer = NoisyLinear(5, 3)
    generator = torch.Generator().manual_seed(0)
    noise = LearnedNoise(layer, 3, generator, redraw=redraw, draw_per_environment=False)
    before = drawn_rows(layer)
    assert before.ndim == 1
    assert len({tuple(row.tolist()) for row in layer(torch.ones(3, 5))}) == 1
    noise.before_action(np.array([True, False, False]), updates=1)
    noise.after_update()
    assert not torch.equal(drawn_rows(layer), before)
