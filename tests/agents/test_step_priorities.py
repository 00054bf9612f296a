"""Which steps of a rollout minibatches prefer: priorities by hand, shares by property."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisynet.agents import StepPriorities
from noisynet.agents.step_priorities import systematic_sample


def test_priorities_by_hand() -> None:
    """Errors of 0, -0.15 and 0.24, with ε 0.01, to the power of a half."""
    found = StepPriorities(0.5, 0.01)(np.array([0.0, -0.15, 0.24]))
    assert found == pytest.approx([0.1, 0.4, 0.5])


@given(
    st.lists(st.floats(0.001, 10), min_size=1, max_size=300),
    st.integers(0, 2**32 - 1),
)
def test_every_step_comes_as_often_as_its_share_says(priorities: list[float], seed: int) -> None:
    priority = np.array(priorities)
    drawn = systematic_sample(priority, np.random.default_rng(seed))
    assert len(drawn) == len(priority)
    times = np.bincount(drawn, minlength=len(priority))
    share = priority / priority.sum() * len(priority)
    assert (times >= np.floor(share - 1e-9)).all()
    assert (times <= np.ceil(share + 1e-9)).all()


def test_shares_are_right_in_the_mean() -> None:
    """10,000 draws: a mean is at most 4 standard errors, 0.02, from a share below 1."""
    priority = np.array([0.2, 0.5, 0.7, 2.6])
    generator = np.random.default_rng(0)
    times = np.zeros(4)
    for _ in range(10_000):
        times += np.bincount(systematic_sample(priority, generator), minlength=4)
    assert times / 10_000 == pytest.approx(priority, abs=0.02)


def test_without_preference_each_step_comes_once() -> None:
    priority = StepPriorities(0.0, 1e-6)(np.linspace(-1, 1, 7))
    assert systematic_sample(priority, np.random.default_rng(3)).tolist() == list(range(7))
