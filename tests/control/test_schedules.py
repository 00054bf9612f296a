"""The scale by the step, by hand, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import noisynet
from noisynet.control import Constant, Cosine, Exponential, Linear, scale

RAMPS = (Linear, Exponential, Cosine)


def test_by_hand() -> None:
    steps = (0, 100, 150, 200, 300, 10**6)
    assert [Constant(0.3)(step) for step in steps] == [0.3] * 6
    linear = Linear(1.0, 0.2, until=300, begin=100)
    assert [linear(step) for step in steps] == pytest.approx([1.0, 1.0, 0.8, 0.6, 0.2, 0.2])
    exponential = Exponential(1.0, 0.01, until=300, begin=100)
    expected = [1.0, 1.0, 0.01**0.25, 0.1, 0.01, 0.01]
    assert [exponential(step) for step in steps] == pytest.approx(expected)
    cosine = Cosine(1.0, 0.0, until=300, begin=100)
    quarter = 0.5 * (1 + math.cos(math.pi / 4))
    assert [cosine(step) for step in steps] == pytest.approx([1.0, 1.0, quarter, 0.5, 0.0, 0.0])


def test_stages_are_those_of_qerl() -> None:
    # Eq. 8 of arXiv 2510.11696: σ(k) = σ_start (σ_end/σ_start)^((k - 1)/(K - 1)), with its own
    # numbers: 10 intervals of 60 steps, from 5e-2 to 5e-4.
    schedule = Exponential(5e-2, 5e-4, until=600, stages=10)
    for k in range(1, 11):
        expected = 5e-2 * (5e-4 / 5e-2) ** ((k - 1) / 9)
        first, last = 60 * (k - 1), 60 * k - 1
        assert schedule(first) == schedule(last) == pytest.approx(expected)
    assert schedule(600) == schedule(10**9) == pytest.approx(5e-4)
    # Stage 16 of 22 begins at 105 = 15 · 154 / 22, though 105 / 154 · 22 is less than 15.
    assert Exponential(1.0, 0.01, until=154, stages=22)(105) == pytest.approx(0.01 ** (15 / 21))


@given(
    kind=st.sampled_from(RAMPS),
    start=st.floats(1e-3, 10),
    end=st.floats(1e-3, 10),
    begin=st.integers(0, 1000),
    steps=st.integers(1, 1000),
    seen=st.integers(0, 3000),
)
def test_it_goes_from_one_end_to_the_other_and_never_outside(
    kind: Any, start: float, end: float, begin: int, steps: int, seen: int
) -> None:
    schedule = kind(start, end, until=begin + steps, begin=begin)
    assert schedule(begin) == pytest.approx(start)
    assert schedule(begin + steps) == pytest.approx(end)
    now, later = schedule(seen), schedule(seen + 1)
    low, high = min(start, end), max(start, end)
    assert low * (1 - 1e-9) <= now <= high * (1 + 1e-9)
    rises = end >= start
    assert (later >= now * (1 - 1e-9)) if rises else (later <= now * (1 + 1e-9))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Constant(math.nan), "value: got nan, expected a finite number of at least 0"),
        (lambda: Constant(-1), "value: got -1, expected a finite number of at least 0"),
        (lambda: Linear(math.nan, 0.1, 10), "start: got nan, expected a finite"),
        (lambda: Linear(1, math.inf, 10), "end: got inf, expected a finite"),
        (lambda: Linear(1, -0.1, 10), "end: got -0.1, expected a finite number of at least 0"),
        (lambda: Linear(1, 0.1, 5, begin=10), r"until: got 5, expected a step after begin \(10\)"),
        (lambda: Cosine(1, 0.1, 0), r"until: got 0, expected a step after begin \(0\)"),
        (lambda: Linear(1, 0.1, 2.5), r"until: got 2.5, expected a step: a whole number"),
        (lambda: Exponential(1, 0, 10), "end: got 0, expected a finite number above 0"),
        (lambda: Exponential(0, 1, 10), "start: got 0, expected a finite number above 0"),
        (lambda: Exponential(1, 0.1, 10, stages=1), "stages: got 1, expected a whole number of at"),
    ],
)
def test_what_is_no_schedule_is_one_line(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_schedule_of_one_s_own_that_reaches_nan_is_one_line() -> None:
    net = noisynet.noisify(nn.Sequential(nn.Linear(2, 2)))

    def mine(step: int) -> float:
        return math.nan if step == 3 else 1.0

    for step in range(3):
        scale(net, mine(step))
    with pytest.raises(ValueError, match="scale: got nan, expected a finite number of at least 0"):
        scale(net, mine(3))
    assert scale(net) == 1.0


def test_each_says_what_it_does() -> None:
    assert Constant(0.3).words == "a constant scale of 0.3"
    said = "cosine schedule, 1 to 0.1 over steps 0 to 20,000"
    assert Cosine(1.0, 0.1, 20_000).words == said
