"""The study's table and plots: interquartile means with stratified bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from noisynet.evaluation.scores import bootstrap_interval, interquartile_mean, interquartile_means

from ..tables import markdown_table
from .part import Record

mpl.use("Agg")
from matplotlib import pyplot as plt

# The returns of random play and of the best play: normalised scores of 0 and 1.
ENDS = {
    "CartPole": (22.0, 500.0),
    "Acrobot": (-500.0, -80.0),
    "Chain": (0.0, 11.0),
    "DeepSea": (0.0, 0.99),
}
SHARED = "The tasks that all arms play"
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#000000",
)  # fmt: skip


def normalised(task: str, value: float) -> float:
    """Scale a return so that random play is 0 and the best play is 1."""
    low, high = next(ends for name, ends in ENDS.items() if task.startswith(name))
    return (value - low) / (high - low)


def summary(
    runs: Sequence[Record], tasks: Sequence[str], arms: Sequence[str], shared: Sequence[str]
) -> list[Record]:
    """Return a row for each task and arm, and one for the tasks that all arms share."""
    rows: list[Record] = []
    for arm in arms:
        groups: dict[str, list[np.ndarray]] = {"final": [], "area": []}
        for task in tasks:
            mine = [one for one in runs if one["task"] == task and one["arm"] == arm]
            if not mine:
                continue
            row: Record = {"task": task, "arm": arm, "seeds": len(mine)}
            for figure in ("final", "area"):
                values = np.array([one[figure] for one in mine])
                row[figure] = interquartile_mean(values)
                row[f"{figure}_interval"] = bootstrap_interval(interquartile_means, [values])
                if task in shared:
                    groups[figure].append(np.array([normalised(task, value) for value in values]))
            rows.append(row)
        # Only if all of these tasks have been run, with equally many seeds.
        counts = {len(samples) for samples in groups["final"]}
        if len(groups["final"]) == len(shared) and len(counts) == 1:
            row = {"task": SHARED, "arm": arm, "seeds": counts.pop()}
            for figure, samples in groups.items():
                row[figure] = interquartile_mean(np.concatenate(samples))
                row[f"{figure}_interval"] = bootstrap_interval(interquartile_means, samples)
            rows.append(row)
    return rows


TASK_BY_TASK = "<!-- task by task -->"
"""Marks where docs/study.md splits the tables."""


def markdown(rows: Sequence[Record], tasks: Sequence[str]) -> str:
    """Return the rows as tables, one for each task."""
    parts: list[str] = []
    for task in (SHARED, *tasks):
        mine = [row for row in rows if row["task"] == task]
        if not mine:
            continue
        scale = "normalised" if task == SHARED else "return"
        parts += [
            f"### {task}",
            "",
            *markdown_table(
                ("arm", "seeds", f"final ({scale})", "area under the curve"),
                [
                    [row["arm"], str(row["seeds"]), _cell(row, "final"), _cell(row, "area")]
                    for row in mine
                ],
            ),
            "",
        ]
        if task == SHARED:
            parts += [TASK_BY_TASK, ""]
    return "\n".join(parts)


def _cell(row: Record, figure: str) -> str:
    found = row[f"{figure}_interval"]
    spread = "" if found is None else f" [{found[0]:.3g}, {found[1]:.3g}]"
    return f"{row[figure]:.3g}{spread}"


def plot(runs: Sequence[Record], arms: Mapping[str, Sequence[str]], file: Path) -> None:
    """Draw the mean training curves of some arms of each task; of two arms, each seed as well."""
    shown = [task for task in arms if any(one["task"] == task for one in runs)]
    if not shown:
        return
    columns = 3
    lines = -(-len(shown) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(11, 2.6 * lines), squeeze=False)
    for place in axes.flat[len(shown) :]:
        place.set_axis_off()
    for place, task in zip(axes.flat, shown, strict=False):
        for colour, arm in zip(COLOURS, arms[task], strict=False):
            mine = [one for one in runs if one["task"] == task and one["arm"] == arm]
            if not mine:
                continue
            curves = np.array([one["curve"] for one in mine])
            steps = np.linspace(0, mine[0]["steps"], curves.shape[1])
            if len(arms[task]) <= 2:
                place.plot(steps, curves.T, color=colour, alpha=0.15, linewidth=0.7)
            place.plot(steps, curves.mean(0), color=colour, label=f"{arm} ({len(mine)} seeds)")
        place.set_title(task, fontsize=9)
        place.tick_params(labelsize=7)
        place.legend(fontsize=6, frameon=False)
    figure.supxlabel("agent steps", fontsize=8)
    figure.supylabel("return of training games", fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=130)
    plt.close(figure)


def plot_arms(rows: Sequence[Record], file: Path) -> None:
    """Draw the arms on the tasks that all of them play: interquartile means and their intervals."""
    shown = [row for row in rows if row["task"] == SHARED][::-1]
    if not shown:
        return
    figure, axes = plt.subplots(1, 2, figsize=(9, 0.32 * len(shown) + 1), sharey=True)
    for place, name, title in zip(
        axes,
        ("final", "area"),
        ("games after training, by the mean weights", "area under the learning curve"),
        strict=True,
    ):
        for height, row in enumerate(shown):
            # Arms whose names begin with "epsilon" explore by ε-greedy alone.
            colour = COLOURS[1] if row["arm"].startswith("epsilon") else COLOURS[0]
            place.plot(row[name], height, "o", color=colour, markersize=5)
            if row[f"{name}_interval"] is not None:
                place.plot(row[f"{name}_interval"], (height, height), color=colour, linewidth=1.5)
        place.set_title(title, fontsize=9)
        place.set_xlabel("normalised return: 0 random play, 1 best play", fontsize=8)
        place.tick_params(labelsize=8)
        place.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(shown)), [row["arm"] for row in shown])
    figure.tight_layout()
    figure.savefig(file, dpi=130)
    plt.close(figure)
