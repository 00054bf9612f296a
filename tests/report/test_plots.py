"""The mean of several curves and its band; what a figure shows, and under the pointer."""

from __future__ import annotations

from typing import Any

import pytest
from bokeh.models import HoverTool, Scatter

from noisynet.evaluation.scores import mean_interval
from noisynet.report import plots
from noisynet.report.groups import variants
from noisynet.report.plots import band
from noisynet.runs.curves import Curve, Thinner
from noisynet.runs.record import read_run


def curve_of(*points: tuple[int, float]) -> Curve:
    thinner = Thinner()
    for step, value in points:
        thinner.add(step, value)
    curve = thinner.curve()
    assert curve is not None
    return curve


def test_a_band_is_students_interval_where_all_curves_are() -> None:
    curves = [
        curve_of((0, 0), (10, 10)),
        curve_of((0, 2), (10, 4), (20, 9)),
        curve_of((0, 4), (10, 7)),
    ]
    found = band(curves, points=3)
    assert found is not None
    assert found.curves == 3
    assert found.step.tolist() == [0, 5, 10]
    assert found.mean.tolist() == [2, pytest.approx(13.5 / 3), 7]
    assert found.low is not None
    assert found.high is not None
    assert (found.low[1], found.high[1]) == pytest.approx(mean_interval([5, 3, 5.5]))


def test_few_curves_have_no_interval_and_curves_apart_have_no_mean() -> None:
    for count in (1, 2):
        few = band([curve_of((0, 1), (1, 2))] * count)
        assert few is not None
        assert few.low is None
    assert band([curve_of((0, 1), (1, 2)), curve_of((99, 1))]) is None


def drawn(write_run, *returns: list[float], **fields: Any) -> Any:
    runs = [
        read_run(write_run(f"run{seed}", each, seed=seed, **fields))
        for seed, each in enumerate(returns)
    ]
    figure = plots.learning_curve(
        "CartPole-v1", variants(runs), plots.steps_axis(runs), plots.Detail()
    )
    assert figure is not None
    return figure


def tips(figure: Any) -> dict[str, list[str]]:
    """What a figure shows under the pointer: {what: its text in each place}."""
    (tool,) = [one for one in figure.tools if isinstance(one, HoverTool)]
    (unseen,) = tool.renderers
    return {name: list(unseen.data_source.data[text[1:]]) for name, text in tool.tooltips}


def test_a_mean_of_one_point_is_a_dot(write_run) -> None:
    figure = drawn(write_run, [3.0])
    dots = [one for one in figure.renderers if isinstance(one.glyph, Scatter)]
    assert [one.data_source.data["y"].tolist() for one in dots] == [[3.0], [3.0]]
    assert tips(figure) == {"step": ["100"], "noise": ["3.00"]}


def test_every_place_of_a_figure_answers_with_rounded_numbers(write_run) -> None:
    figure = drawn(write_run, [449.7354] * 9, [450.1] * 9, [451.0] * 4)
    (tool,) = [one for one in figure.tools if isinstance(one, HoverTool)]
    places = tool.renderers[0].data_source.data
    assert tool.mode == "vline"
    assert places["left"][0] == 0
    assert places["right"][-1] == figure.x_range.end
    glyph = tool.renderers[0].glyph
    assert (glyph.bottom, glyph.top) == (figure.y_range.start, figure.y_range.end)
    assert list(places["left"][1:]) == list(places["right"][:-1])
    told = tips(figure)
    assert told["step"][0] == "100"
    assert told["noise"][0] == "450 (449 to 452)"


def test_a_line_says_nothing_where_it_is_not(write_run) -> None:
    figure = drawn(write_run, [1.0] * 2, [5.0])
    assert tips(figure)["noise"] == ["3.00"]
    apart = [
        read_run(write_run(name, [2.0], every=every)) for name, every in (("a", 100), ("b", 300))
    ]
    axis = plots.steps_axis(apart)
    figure = plots.learning_curve("CartPole-v1", variants(apart), axis, plots.Detail())
    told = tips(figure)
    assert (told["noise, a"][0], told["noise, a"][-1]) == ("2.00", "–")
    assert (told["noise, b"][0], told["noise, b"][-1]) == ("–", "2.00")


@pytest.mark.parametrize(
    ("values", "around", "least"),
    [
        ([18.0, 18.08], [], 1),
        ([18.0, 18.08], [-21, 18.08], 39),
        ([0.0, 0.0], [], 0.5),
        ([5], [], 0.4),
    ],
)
def test_a_difference_of_little_size_does_not_fill_an_axis(
    values: list[float], around: list[float], least: float
) -> None:
    rows = [
        {"label": str(number), "iqm": value, "interval": None, "runs": 1}
        for number, value in enumerate(values)
    ]
    labels = [row["label"] for row in rows]
    figure = plots.intervals("scores", rows, labels, around=around)
    assert figure.x_range.end - figure.x_range.start >= least
    assert figure.x_range.start < min(values) <= max(values) < figure.x_range.end
