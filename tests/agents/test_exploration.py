"""Exploration: the schedule of ε, its actions, and the noise that is held per environment."""

import numpy as np
import pytest
import torch

from noisynet import held
from noisynet.agents.exploration import LearnedNoise, LinearEpsilon, epsilon_greedy
from noisynet.layers import NoisyLinear


def test_epsilon_falls_linearly_from_the_end_of_the_warmup() -> None:
    epsilon = LinearEpsilon(start=1.0, end=0.1, steps=100, begin=50)
    values = [epsilon(step) for step in (0, 50, 100, 150, 10**6)]
    assert values == pytest.approx([1.0, 1.0, 0.55, 0.1, 0.1])


def test_epsilon_greedy_replaces_the_share_that_it_says() -> None:
    generator = np.random.Generator(np.random.PCG64(0))
    greedy = np.zeros(40_000, np.int64)
    chosen = epsilon_greedy(greedy, actions=4, epsilon=0.2, generator=generator)
    # A random action is another one with probability 3/4; five standard errors.
    share, expected = np.mean(chosen != 0), 0.2 * 3 / 4
    assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / len(greedy))
    assert set(chosen) == {0, 1, 2, 3}
    assert (epsilon_greedy(greedy[:100], 4, 0.0, generator) == 0).all()


def test_learned_noise_is_held_per_environment_and_redrawn_on_demand() -> None:
    layer = NoisyLinear(5, 3)
    noise = LearnedNoise(layer, rows=4, generator=torch.Generator().manual_seed(0))
    same = torch.ones(4, 5)
    before = layer(same)
    assert torch.equal(before, layer(same))
    assert len({tuple(row.tolist()) for row in before}) == 4
    noise.redraw()
    after = layer(same)
    assert not torch.isclose(before, after).any(dim=1).all()
    drawn = held(layer)
    assert drawn is not None
    assert drawn.rows == 4
