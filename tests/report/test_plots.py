"""The mean of several curves and its band."""

from __future__ import annotations

import pytest

from noisynet.evaluation import mean_interval
from noisynet.report.plots import band
from noisynet.runs.curves import Curve, Thinner


def curve_of(*points: tuple[int, float]) -> Curve:
    thinner = Thinner()
    for step, value in points:
        thinner.add(step, value)
    curve = thinner.curve()
    assert curve is not None
    return curve


def test_a_band_is_students_interval_where_all_curves_are() -> None:
    curves = [curve_of((0, 0), (10, 10)), curve_of((0, 2), (10, 4), (20, 9))]
    found = band(curves, points=3)
    assert found is not None
    assert found.curves == 2
    assert found.step.tolist() == [0, 5, 10]
    assert found.mean.tolist() == [1, 4, 7]
    assert found.low is not None
    assert found.high is not None
    assert (found.low[1], found.high[1]) == pytest.approx(mean_interval([5, 3]))


def test_one_curve_has_no_interval_and_curves_apart_have_no_mean() -> None:
    alone = band([curve_of((0, 1), (1, 2))])
    assert alone is not None
    assert alone.low is None
    assert band([curve_of((0, 1), (1, 2)), curve_of((99, 1))]) is None
