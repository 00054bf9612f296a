"""Thinned curves keep what matters: extremes and last values of each bucket."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from noisynet.runs.curves import Curve, Thinner


def thinned(values: list[float], buckets: int = 8, every: int = 1) -> Curve:
    thinner = Thinner(buckets)
    for index, value in enumerate(values):
        thinner.add(index * every, value)
    curve = thinner.curve()
    assert curve is not None
    return curve


def test_few_points_are_kept_as_they_are() -> None:
    curve = thinned([3.0, 1.0, 2.0], every=10)
    assert curve.step.tolist() == [0, 10, 20]
    assert curve.last.tolist() == curve.low.tolist() == curve.high.tolist() == [3, 1, 2]
    assert curve.extremes()[1].tolist() == [3, 1, 2]
    # Games of several environments that end at one step: the last of them is the figure.
    curve = thinned([3.0, 1.0, 2.0], every=0)
    assert (curve.step, curve.last, curve.low, curve.high) == ([0], [2], [1], [3])


def test_buckets_by_hand() -> None:
    # Five points in at most three buckets: of two steps each, the last one half full.
    curve = thinned([1.0, 5.0, 2.0, 0.0, 7.0], buckets=3)
    assert curve.step.tolist() == [1, 3, 4]
    assert curve.high.tolist() == [5, 2, 7]
    assert curve.high_step.tolist() == [1, 2, 4]
    assert curve.last.tolist() == [5, 0, 7]
    assert curve.low.tolist() == [1, 0, 7]
    steps, values = curve.extremes()
    assert steps.tolist() == [0, 1, 2, 3, 4]
    assert values.tolist() == [1, 5, 2, 0, 7]


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(2, 20), st.integers(1, 50)
)
def test_memory_is_bounded_and_extremes_survive(
    values: list[float], buckets: int, every: int
) -> None:
    curve = thinned(values, buckets, every)
    assert len(curve.step) <= buckets
    assert curve.low.min() == min(values)
    assert curve.high.max() == max(values)
    assert curve.last[-1] == values[-1]
    assert curve.step[-1] == (len(values) - 1) * every
    assert (np.diff(curve.step) > 0).all()
    assert (np.diff(curve.extremes()[0]) >= 0).all()


def test_nothing_gives_no_curve() -> None:
    assert Thinner().curve() is None


def test_values_at_steps_and_on_a_grid() -> None:
    curve = thinned([0.0, 10.0, 20.0], every=10)
    assert curve.at(-1) is None
    assert curve.at(9) == 0
    assert curve.at(10) == 10
    assert curve.at(1e9) == 20
    on = curve.on(np.array([-1.0, 0.0, 5.0, 20.0, 21.0]))
    assert np.isnan(on[[0, 4]]).all()
    assert on[1:4].tolist() == [0, 5, 20]
