"""The report's interactive Bokeh figures, in colours that colour-blind people can tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from bokeh.models import (
    BasicTicker,
    ColumnDataSource,
    CrosshairTool,
    HoverTool,
    NumeralTickFormatter,
    Range1d,
    VArea,
)
from bokeh.plotting import figure

from ..evaluation.scores import mean_interval
from ..runs.curves import Curve, Numbers
from ..runs.record import RunRecord
from .comparison import LEAST_RUNS
from .groups import Variant
from .layer_sigmas import LayerSigma

# The colours of Okabe and Ito that stand out on white and on black alike, and a grey.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a8a")
_DASHES = ("solid", "dashed", "dotted", "dotdash")
_MOST_SEEDS = 10
_SHARES = ("epsilon", "noise/effective_epsilon", "dormant/")
_SHORT_LABEL = 18
# One margin for all figures, so that their axes line up.
_LEFT = 58

Figure = Any


@dataclass(frozen=True)
class Detail:
    """The amount of detail in figures: less detail takes fewer bytes."""

    single: bool = True
    """Whether lines of single runs and dots of single games are drawn beside the means."""
    points: int = 160
    """The number of points of a mean and its band."""


@dataclass(frozen=True)
class Band:
    """The mean of several curves with its interval; each array is (points,)."""

    step: Numbers
    mean: Numbers
    low: Numbers | None
    """Lower end of the 95 % interval (Student's t); None for fewer than 3 curves."""
    high: Numbers | None
    curves: int


_Line = tuple[str, Band, int]
"""A line's label, its values and the number of its style."""


def band(curves: Sequence[Curve], points: int = 160) -> Band | None:
    """Average curves where all of them have values, with a 95 % interval at each point.

    None if they have no step in common. Two curves have no interval: with one degree of freedom it
    would be thirteen times as wide as the distance between them.
    """
    begin = max(float(curve.step[0]) for curve in curves)
    end = min(float(curve.step[-1]) for curve in curves)
    if end < begin:
        return None
    grid = np.linspace(begin, end, points) if end > begin else np.array([begin])
    rows = np.stack([curve.on(grid) for curve in curves])
    if len(curves) < LEAST_RUNS:
        return Band(grid, rows.mean(axis=0), None, None, len(curves))
    intervals: list[Any] = [mean_interval(column) for column in rows.T]
    low, high = np.array(intervals, np.float64).T
    return Band(grid, rows.mean(axis=0), low, high, len(curves))


def style(index: int) -> tuple[str, str]:
    """Return the colour and the dash of line number `index`; the first 28 are all different."""
    return PALETTE[index % len(PALETTE)], _DASHES[index // len(PALETTE) % len(_DASHES)]


def steps_axis(runs: Sequence[RunRecord]) -> Range1d:
    """Return the range of steps that all figures about these runs share."""
    return Range1d(start=0, end=1.02 * max([1, *(run.step for run in runs)]))


def learning_curve(
    game: str, variants: Sequence[Variant], axis: Range1d, detail: Detail
) -> Figure | None:
    """Draw the mean return of the last games, with an interval over seeds; None without games."""
    plot = _figure(f"{game}: return in training", axis)
    few = sum(len(variant.on(game)) for variant in variants) <= 2
    lines: list[_Line] = []
    for index, variant in enumerate(variants):
        runs = variant.on(game)
        if detail.single and few:
            _games(plot, runs, index)
        seeds = [run for run in runs if "game/mean_return" in run.curves]
        if detail.single and 1 < len(seeds) <= _MOST_SEEDS:
            for run in seeds:
                curve = run.curves["game/mean_return"]
                plot.line(
                    curve.step, curve.last, color=style(index)[0], line_width=1, line_alpha=0.55
                )
        lines += _means(variant.label, runs, "game/mean_return", index, detail)
    return _finished(plot, lines, detail)


def layers(
    title: str, runs: Sequence[RunRecord], family: str, axis: Range1d, detail: Detail
) -> Figure | None:
    """Draw a quantity of every layer, such as its SNR, averaged over runs; None if none has it."""
    names = dict.fromkeys(tag for run in runs for tag in run.tags(family))
    lines: list[_Line] = []
    for index, tag in enumerate(names):
        lines += _means(tag.removeprefix(family), runs, tag, index, detail)
    return _finished(_figure(title, axis), lines, detail)


def by_variant(
    title: str,
    game: str,
    variants: Sequence[Variant],
    tags: Mapping[str, str],
    axis: Range1d,
    detail: Detail,
) -> Figure | None:
    """Draw recorded quantities of each variant; None if no variant has any of them.

    `tags` is {tag of the quantity: its name in the legend}.
    """
    lines: list[_Line] = []
    for index, variant in enumerate(variants):
        style_number = index  # the variant's first line has the same colour in all figures
        for tag, word in tags.items():
            label = f"{variant.label}: {word}" if word else variant.label
            if found := _means(label, variant.on(game), tag, style_number, detail):
                lines += found
                style_number += len(variants)
    return _finished(_figure(title, axis), lines, detail)


def sigma_histogram(layer: LayerSigma) -> Figure:
    """Draw the distribution of a layer's σ at the start of training and now.

    Initial σ that are all equal, as in the paper, are drawn as a dashed line: as a bar, they would
    dwarf all others.
    """
    plot = _figure(f"σ of {layer.name}", None, "σ", height=260)
    end, edges = layer.end, layer.edges
    tips = {
        "σ": [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)],
        "now": [f"{share:.1%} of the weights" for share in end],
    }
    _bars(plot, edges, end, "now", PALETTE[0])
    if layer.start is not None:
        tips["at the start"] = [f"{share:.1%}" for share in layer.start]
        if layer.start.max() > 0.999:
            middle = float(edges[int(layer.start.argmax()) :][:2].mean())
            plot.line(
                [middle, middle], [0, float(end.max())], color=PALETTE[1], line_width=3,
                line_dash="dashed", legend_label="at the start, all of them",
            )  # fmt: skip
        else:
            _bars(plot, edges, layer.start, "at the start", PALETTE[1])
    plot.yaxis[0].formatter = NumeralTickFormatter(format="0 %")
    plot.xaxis[0].ticker = BasicTicker(desired_num_ticks=5)
    _add_tooltips(plot, {"left": edges[:-1], "right": edges[1:], "bottom": 0, "top": 1}, tips)
    plot.y_range = Range1d(start=0, end=1.08 * float(end.max()))
    _legend_below(plot, columns=2)
    return plot


def intervals(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    *,
    around: Sequence[float] = (),
    centre: str = "IQM",
    each: str = "run",
) -> Figure:
    """Draw interquartile means with their intervals, and all scores if there are only a few.

    A row's colour depends on the place of its label in `labels`. The axis includes the values
    `around`. `centre` names the mean that rows have as `iqm`, and `each` the thing that a score
    belongs to.
    """
    ends = [[row["iqm"], *(row["interval"] or ()), *row.get("scores", ())] for row in rows]
    values = np.concatenate([np.array(one, np.float64) for one in ends])
    decimals, span = _decimals(values), _range(np.append(values, around))
    plot = _figure(
        title,
        None,
        "",
        height=96 + 52 * len(rows),
        x_range=span,
        y_range=Range1d(start=-0.45, end=len(rows)),
    )
    for index, row in enumerate(rows):
        colour, _ = style(labels.index(row["label"]))
        y = len(rows) - 1 - index
        number, scores = f"{row['iqm']:,.{decimals}f}", row.get("scores", ())
        said = f"{row['label']}: {number}"
        tips = {str(row["label"]): [f"{centre} {number}"], f"{each}s": [str(row["runs"])]}
        if row["interval"]:
            low, high = row["interval"]
            plot.segment([low], [y], [high], [y], color=colour, line_width=7, line_alpha=0.45)
            interval = f"{low:,.{decimals}f} to {high:,.{decimals}f}"
            said += f" ({interval})"
            tips["95 %"] = [interval]
        if 0 < len(scores) <= 2 * _MOST_SEEDS:
            plot.scatter(
                scores, [y] * len(scores), marker="dash", angle=np.pi / 2, size=16, color=colour
            )
            tips["scores"] = [", ".join(f"{score:,.{decimals}f}" for score in sorted(scores))]
        plot.scatter([row["iqm"]], [y], color=colour, size=13)
        plot.text([span.start], [y + 0.34], [f" {said}"], text_font_size="12px")
        place = {"left": [span.start], "right": [span.end], "bottom": y - 0.45, "top": y + 0.55}
        _add_tooltips(plot, place, tips, mode="mouse")
    plot.ygrid.visible = plot.yaxis.visible = False
    plot.min_border_left = 12
    return plot


def _means(
    label: str, runs: Sequence[RunRecord], tag: str, index: int, detail: Detail
) -> list[_Line]:
    """Average a recorded quantity over runs; runs without a common step get a line each."""
    members = [run for run in runs if tag in run.curves]
    if not members:
        return []
    found = band([run.curves[tag] for run in members], detail.points)
    if found and found.low is not None and found.high is not None and tag.startswith(_SHARES):
        found = replace(found, low=found.low.clip(0, 1), high=found.high.clip(0, 1))
    if found is not None:
        return [(label, found, index)]
    alone = [(run.name, band([run.curves[tag]], detail.points)) for run in members[:_MOST_SEEDS]]
    return [(f"{label}, {name}", one, index) for name, one in alone if one is not None]


def _figure(
    title: str, axis: Range1d | None, x: str = "agent steps", *, height: int = 320, **options: Any
) -> Figure:
    """Start a figure; `axis` is the range of steps, None where x is something else."""
    plot = figure(
        title=title,
        height=height,
        sizing_mode="stretch_width",
        tools="pan,box_zoom,wheel_zoom,reset,save",
        # No tool is active at first: on a phone, a drag has to scroll the page.
        active_drag=None,
        active_scroll=None,
        toolbar_location="above",
        x_axis_label=x,
        min_border_left=_LEFT,
        min_border_right=12,
        **({} if axis is None else {"x_range": axis}),
        **options,
    )
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    if axis is not None:
        plot.xaxis[0].formatter = NumeralTickFormatter(format="0.[0]a")
        plot.xaxis[0].ticker = BasicTicker(desired_num_ticks=5)
    return plot


def _add_tooltips(
    plot: Figure,
    place: Mapping[str, Any],
    tips: Mapping[str, Sequence[str]],
    mode: Literal["mouse", "vline"] = "vline",
) -> None:
    """Make a figure show tooltips anywhere, not only over lines and dots.

    `place` has the edges of invisible rectangles, `tips` is {name: its text in each rectangle}.
    """
    columns = {f"tip{number}": list(texts) for number, texts in enumerate(tips.values())}
    fixed = {name: one for name, one in place.items() if isinstance(one, int | float)}
    moving = {name: one for name, one in place.items() if name not in fixed}
    unseen = plot.quad(
        **fixed, **{name: name for name in moving}, source=ColumnDataSource({**moving, **columns}),
        fill_alpha=0, line_alpha=0,
    )  # fmt: skip
    named = [(name, f"@{column}") for name, column in zip(tips, columns, strict=True)]
    plot.add_tools(
        HoverTool(renderers=[unseen], tooltips=named, mode=mode, point_policy="follow_mouse",
                  visible=False)
    )  # fmt: skip


def _decimals(values: Numbers) -> int:
    """Return the number of decimals that shows three digits of the largest value."""
    largest = np.abs(values[np.isfinite(values)]).max(initial=0.0)
    return int(np.clip(2 - np.floor(np.log10(largest)), 0, 8)) if largest > 0 else 0


def _range(values: Numbers) -> Range1d:
    """Return the range of an axis, wide enough that a relatively small difference looks small."""
    values = values[np.isfinite(values)]
    low, high = float(values.min(initial=np.inf)), float(values.max(initial=-np.inf))
    if not low <= high:
        return Range1d(start=0, end=1)
    room = max(high - low, 0.1 * max(abs(low), abs(high))) or 1.0
    middle, half = low / 2 + high / 2, 0.58 * room
    start = max(middle - half, -0.02 * room) if low >= 0 else middle - half
    return Range1d(start=start, end=middle + half)


def _bars(plot: Figure, edges: Any, shares: Any, label: str, colour: str) -> None:
    plot.quad(
        left=edges[:-1], right=edges[1:], top=shares, bottom=0, color=colour, fill_alpha=0.55,
        line_alpha=0.9, legend_label=label,
    )  # fmt: skip


def _games(plot: Figure, runs: Sequence[RunRecord], index: int) -> None:
    for run in runs:
        if "game/return" in run.curves:
            step, value = run.curves["game/return"].extremes()
            plot.scatter(step, value, size=4, color=style(index)[0], alpha=0.35)


def _finished(plot: Figure, lines: Sequence[_Line], detail: Detail) -> Figure | None:
    """Draw lines with their bands, tooltips and a legend; return None if there are no lines."""
    if not lines:
        return None
    for label, found, index in lines:
        colour, dash = style(index)
        if found.low is not None:
            plot.varea(
                found.step, found.low, found.high, color=colour, fill_alpha=0.16, legend_label=label
            )
        plot.line(
            found.step, found.mean, color=colour, line_dash=dash, line_width=2.5, legend_label=label
        )
        if len(found.step) == 1:  # a line of one point is invisible
            plot.scatter(found.step, found.mean, color=colour, size=8, legend_label=label)
    # With few runs, the interval can be many times as wide as the range of their returns: the lines
    # set the scale, and a band may reach beyond it.
    drawn = [one for one in plot.renderers if not isinstance(one.glyph, VArea)]
    plot.y_range = _range(np.concatenate([one.data_source.data["y"] for one in drawn]))
    begin = min(float(found.step[0]) for _, found, _ in lines)
    end = max(float(found.step[-1]) for _, found, _ in lines)
    steps = np.unique(np.linspace(begin, end, detail.points).round())
    edges = [0, *(steps[1:] / 2 + steps[:-1] / 2), max(end, float(plot.x_range.end))]
    # Bokeh finds only what lies within the part of the axis that is shown.
    shown = {"bottom": plot.y_range.start, "top": plot.y_range.end}
    place = {"left": edges[:-1], "right": edges[1:], **shown}
    decimals = _decimals(np.concatenate([found.mean for _, found, _ in lines]))
    tips = {label: _readings(found, steps, decimals) for label, found, _ in lines}
    _add_tooltips(plot, place, {"step": [f"{step:,.0f}" for step in steps], **tips})
    plot.add_tools(
        CrosshairTool(dimensions="height", line_color="#8a8a8a", line_alpha=0.6, visible=False)
    )
    short = max(len(label) for label, _, _ in lines) <= _SHORT_LABEL
    _legend_below(plot, columns=2 if short else 1)
    plot.legend[0].visible = len(lines) > 1
    return plot


def _readings(found: Band, steps: Numbers, decimals: int) -> list[str]:
    """Return a line's value and interval at each step as text; a dash beyond the line's ends."""
    rows = [found.mean, *([] if found.low is None else [found.low, found.high])]
    at = [np.interp(steps, found.step, row) for row in rows if row is not None]
    texts = [
        f"{mean:,.{decimals}f}"
        + (f" ({rest[0]:,.{decimals}f} to {rest[1]:,.{decimals}f})" if rest else "")
        for mean, *rest in zip(*at, strict=True)
    ]
    inside = (steps >= found.step[0].round()) & (steps <= found.step[-1].round())
    return [text if here else "–" for text, here in zip(texts, inside, strict=True)]


def _legend_below(plot: Figure, *, columns: int) -> None:
    legend = plot.legend[0]
    legend.click_policy = "hide"
    legend.ncols = columns
    legend.location = "top_left"
    legend.spacing = 6 if columns > 1 else 0
    legend.padding = 4
    legend.label_text_font_size = "12px"
    plot.add_layout(legend, "below")
