"""The report's figures, by Bokeh: interactive, in colours that colour-blind people tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from bokeh.models import BasicTicker, ColumnDataSource, HoverTool, NumeralTickFormatter, VArea
from bokeh.plotting import figure

from ..evaluation.scores import mean_interval
from ..runs.curves import Curve, Numbers
from ..runs.record import RunRecord
from .groups import Variant
from .layer_sigmas import LayerSigma

# Okabe and Ito's, those that stand out on white and on black alike.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a8a")
_DASHES = ("solid", "dashed", "dotted", "dotdash")
_MOST_SEEDS = 10
_STEPS = "agent steps"

Figure = Any


@dataclass(frozen=True)
class Detail:
    """How much of each run its figures show: less of it takes fewer bytes."""

    single: bool = True
    """Lines of single runs, and dots of single games, beside the means."""
    points: int = 160
    """Points of a mean and its band."""


@dataclass(frozen=True)
class Band:
    """The mean of several curves, and where it may lie: each (points,)."""

    step: Numbers
    mean: Numbers
    low: Numbers | None
    """Lower end of the 95 % interval (Student's t); None for one curve."""
    high: Numbers | None
    curves: int


def band(curves: Sequence[Curve], points: int = 160) -> Band | None:
    """Average curves where all of them have values, with a 95 % interval at each point.

    None where they have no step in common.
    """
    begin = max(float(curve.step[0]) for curve in curves)
    end = min(float(curve.step[-1]) for curve in curves)
    if end < begin:
        return None
    grid = np.linspace(begin, end, points) if end > begin else np.array([begin])
    rows = np.stack([curve.on(grid) for curve in curves])
    if len(curves) < 2:
        return Band(grid, rows[0], None, None, 1)
    intervals: list[Any] = [mean_interval(column) for column in rows.T]
    low, high = np.array(intervals, np.float64).T
    return Band(grid, rows.mean(axis=0), low, high, len(curves))


def style(index: int) -> tuple[str, str]:
    """Return colour and dash of the line with a number, different for the first 28."""
    return PALETTE[index % len(PALETTE)], _DASHES[index // len(PALETTE) % len(_DASHES)]


def learning_curve(game: str, variants: Sequence[Variant], detail: Detail) -> Figure | None:
    """Draw the mean return of the last games, with an interval over seeds; None without games."""
    plot = _figure(f"{game}: learning curve", _STEPS, "mean return of the last games")
    games = sum(len(variant.on(game)) for variant in variants)
    for index, variant in enumerate(variants):
        runs = [run for run in variant.on(game) if "game/mean_return" in run.curves]
        if not runs:
            continue
        found = band([run.curves["game/mean_return"] for run in runs], detail.points)
        # The band's line names the variant; runs without a step in common have none.
        name = {"legend_label": variant.label} if found is None else {}
        if detail.single and games <= 2:
            _games(plot, runs, index, **name)
        if detail.single and 1 < len(runs) <= _MOST_SEEDS:
            for run in runs:
                _seed_line(plot, run, index, **name)
        if found is not None:
            _banded(plot, variant.label, found, index)
    return _finished(plot)


def layers(
    title: str, unit: str, runs: Sequence[RunRecord], family: str, detail: Detail
) -> Figure | None:
    """Draw a figure of every noisy layer, averaged over the runs; None where none has it."""
    names = dict.fromkeys(tag for run in runs for tag in run.tags(family))
    plot = _figure(title, _STEPS, unit)
    for index, tag in enumerate(names):
        found = band([run.curves[tag] for run in runs if tag in run.curves], detail.points)
        if found is not None:
            _banded(plot, tag.removeprefix(family), found, index)
    return _finished(plot)


def by_variant(
    title: str,
    unit: str,
    game: str,
    variants: Sequence[Variant],
    tags: Mapping[str, str],
    detail: Detail,
) -> Figure | None:
    """Draw figures, {tag: its word in the legend}, of each variant; None where none has any."""
    plot = _figure(title, _STEPS, unit)
    for index, variant in enumerate(variants):
        style_number = index  # the colour that the variant has everywhere, for its first line
        for tag, word in tags.items():
            curves = [run.curves[tag] for run in variant.on(game) if tag in run.curves]
            found = band(curves, detail.points) if curves else None
            if found is not None:
                label = f"{variant.label}: {word}" if word else variant.label
                _banded(plot, label, found, style_number, share=unit.startswith("share"))
                style_number += len(variants)
    return _finished(plot)


def sigma_histogram(layer: LayerSigma) -> Figure | None:
    """Draw how a layer's σ are spread at the start and at the end.

    Initial σ that are all alike, as the paper has them, are a dashed line: as a bar they would
    dwarf all others.
    """
    plot = _figure(f"σ of {layer.name}", "σ", "share of weights", height=260)
    _bars(plot, layer.edges, layer.end, "now", PALETTE[0])
    if layer.start is not None and layer.start.max() > 0.999:
        place = int(layer.start.argmax())
        middle = float(layer.edges[place : place + 2].mean())
        line = plot.line(
            x=[middle, middle], y=[0, float(layer.end.max())], color=PALETTE[1], line_width=3,
            line_dash="dashed", legend_label="at the start, all of them",
        )  # fmt: skip
        _hover(plot, line, [("at the start", f"every σ near {middle:.4f}")])
    elif layer.start is not None:
        _bars(plot, layer.edges, layer.start, "at the start", PALETTE[1])
    plot.yaxis[0].formatter = NumeralTickFormatter(format="0 %")
    plot.xaxis[0].ticker = BasicTicker(desired_num_ticks=5)
    return _finished(plot)


def _bars(plot: Figure, edges: Any, shares: Any, label: str, colour: str) -> None:
    source = ColumnDataSource(
        {"left": edges[:-1], "right": edges[1:], "top": shares, "label": [label] * len(shares)}
    )
    bars = plot.quad(
        left="left", right="right", top="top", bottom=0, source=source, color=colour,
        fill_alpha=0.55, line_alpha=0.9, legend_label=label,
    )  # fmt: skip
    tips = [("", "@label"), ("σ", "@left{0.0000} to @right{0.0000}"), ("share", "@top{0.0 %}")]
    _hover(plot, bars, tips)


def intervals(
    title: str,
    unit: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    centre: str = "IQM",
    each: str = "run",
) -> Figure:
    """Draw interquartile means with their intervals, and each run's score where they are few.

    `centre` and `each` say where rows have another mean, of other things, under the same names.
    """
    labels = [str(row["label"]) for row in rows]
    plot = _figure(title, unit, "", height=110 + 44 * len(rows), y_range=labels[::-1])
    for index, row in enumerate(rows):
        colour, _ = style(index)
        low, high = row["interval"] or (row["iqm"], row["iqm"])
        source = ColumnDataSource(
            {"y": [row["label"]], "low": [low], "high": [high], "iqm": [row["iqm"]],
             "runs": [row["runs"]]}
        )  # fmt: skip
        plot.segment(
            x0="low", x1="high", y0="y", y1="y", source=source, color=colour, line_width=6,
            line_alpha=0.5,
        )  # fmt: skip
        dots = plot.scatter(x="iqm", y="y", source=source, color=colour, size=13)
        tips = [("", "@y"), (centre, "@iqm{0.00}"), ("interval", "@low{0.00} to @high{0.00}")]
        _hover(plot, dots, [*tips, (f"{each}s", "@runs")])
        scores = row.get("scores", [])
        if len(scores) <= 2 * _MOST_SEEDS:
            single = ColumnDataSource(
                {"x": scores, "y": [row["label"]] * len(scores), "seed": row.get("seeds", scores)}
            )
            marks = plot.scatter(
                x="x", y="y", source=single, marker="dash", angle=np.pi / 2, size=16, color=colour,
            )  # fmt: skip
            _hover(plot, marks, [("score", "@x{0.00}"), ("seed", "@seed")])
    plot.ygrid.visible = False
    return plot


def _figure(title: str, x: str, y: str, *, height: int = 320, **options: Any) -> Figure:
    plot = figure(
        title=title,
        height=height,
        sizing_mode="stretch_width",
        tools="pan,box_zoom,wheel_zoom,reset,save",
        # Nothing is active before it is chosen: on a phone a drag scrolls the page.
        active_drag=None,
        active_scroll=None,
        toolbar_location="below",
        x_axis_label=x,
        y_axis_label=y,
        min_border_right=12,
        **options,
    )
    plot.toolbar.logo = None
    if "y_range" not in options and x == _STEPS:
        plot.xaxis[0].formatter = NumeralTickFormatter(format="0.[0]a")
        plot.xaxis[0].ticker = BasicTicker(desired_num_ticks=5)
    return plot


def _hover(plot: Figure, glyph: Any, tips: list[tuple[str, str]]) -> None:
    plot.add_tools(HoverTool(renderers=[glyph], tooltips=tips, visible=False))


def _banded(plot: Figure, label: str, found: Band, index: int, *, share: bool = False) -> None:
    colour, dash = style(index)
    data: dict[str, Any] = {"step": found.step, "mean": found.mean}
    data["label"] = [label] * len(found.step)
    tips = [("", "@label"), ("step", "@step{0,0}"), ("value", "@mean{0.[0000]}")]
    if found.low is not None and found.high is not None:
        low, high = found.low, found.high
        if share:
            low, high = np.clip(low, 0, 1), np.clip(high, 0, 1)
        data |= {"low": low, "high": high}
        tips.append((f"95 % of {found.curves} runs", "@low{0.[00]} to @high{0.[00]}"))
    source = ColumnDataSource(data)
    if found.low is not None:
        plot.varea(
            x="step", y1="low", y2="high", source=source, color=colour, fill_alpha=0.16,
            legend_label=label,
        )  # fmt: skip
    line = plot.line(
        x="step", y="mean", source=source, color=colour, line_dash=dash, line_width=2.5,
        legend_label=label,
    )  # fmt: skip
    _hover(plot, line, tips)
    if len(found.step) == 1:  # a line of one point is not seen
        plot.scatter(x="step", y="mean", source=source, color=colour, size=8, legend_label=label)


def _seed_line(plot: Figure, run: RunRecord, index: int, **name: str) -> None:
    curve: Curve = run.curves["game/mean_return"]
    source = ColumnDataSource({"step": curve.step, "value": curve.last})
    line = plot.line(
        x="step", y="value", source=source, color=style(index)[0], line_width=1, line_alpha=0.55,
        **name,
    )  # fmt: skip
    _hover(plot, line, [("seed", str(run.seed)), ("value", "@value{0.[00]}")])


def _games(plot: Figure, runs: Sequence[RunRecord], index: int, **name: str) -> None:
    for run in runs:
        if "game/return" not in run.curves:
            continue
        step, value = run.curves["game/return"].extremes()
        source = ColumnDataSource({"step": step, "value": value})
        dots = plot.scatter(
            x="step", y="value", source=source, size=4, color=style(index)[0], alpha=0.35, **name,
        )  # fmt: skip
        _hover(plot, dots, [("a game's return", "@value{0.[00]}"), ("step", "@step{0,0}")])


def _finished(plot: Figure) -> Figure | None:
    """Return a figure with its legend in place; None where nothing was drawn in it."""
    if not plot.legend:
        return None
    # The interval of two runs can be many times as wide as all that the runs did: lines set the
    # scale, and a band may reach beyond it.
    bands = [one for one in plot.renderers if isinstance(one.glyph, VArea)]
    if bands:
        plot.y_range.renderers = [one for one in plot.renderers if one not in bands]
        plot.y_range.range_padding = 0.3
    legend = plot.legend[0]
    legend.click_policy = "hide"
    legend.location = "top_left"
    legend.orientation = "vertical"
    legend.spacing = 0
    legend.padding = 4
    legend.label_text_font_size = "12px"
    plot.add_layout(legend, "below")
    return plot
