"""What a run's files say of its noise: σ over the run, and returns with noise and without."""

from __future__ import annotations

from pathlib import Path

from ..diagnostics import Finding
from ..runs import read_metrics
from ..runs.evaluations import Evaluation, newest_by_noise
from .scores import mean_difference_interval

_COLLAPSED = 0.01
"""Share of its first value below which mean |σ| counts as collapsed."""
_EXPLODED = 10.0


def sigma_figures(path: Path) -> dict[str, tuple[float, float]]:
    """Read the first and the last mean |σ| of each layer from a run's metrics.

    In the metrics σ is multiplied by the scale; here the scale is divided out again.
    """
    figures: dict[str, tuple[float, float]] = {}
    for record in read_metrics(path):
        scale = record.get("noise/scale", 1.0)
        if not isinstance(scale, int | float) or not scale:
            continue
        for tag, value in record.items():
            if tag.startswith("sigma/") and isinstance(value, int | float):
                learned = float(value) / scale
                first = figures.get(tag, (learned, 0.0))[0]
                figures[tag] = (first, learned)
    return {tag.removeprefix("sigma/"): pair for tag, pair in figures.items()}


def over_the_run(figures: dict[str, tuple[float, float]]) -> Finding:
    """Check how mean |σ| of each layer changed over a run, from {layer: (first, last)}."""
    name = "sigma over the run"
    if not figures:
        return Finding(name, "skipped", "no figures of σ in its metrics yet")
    ratios = {layer: last / first if first else 1.0 for layer, (first, last) in figures.items()}
    lowest, highest = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
    for layer, bad, word in (
        (lowest, ratios[lowest] < _COLLAPSED, "collapsed"),
        (highest, ratios[highest] > _EXPLODED, "exploded"),
    ):
        if bad:
            first, last = figures[layer]
            return Finding(
                name,
                "fail",
                f"mean |σ| of {layer!r} {word}: {first:.3g} at first, {last:.3g} now",
                "look at the step size, weight decay and the scale of the rewards",
            )
    if all(first == last for first, last in figures.values()):
        return Finding(name, "skipped", "one line of figures, or σ has not moved between them")
    return Finding(
        name,
        "pass",
        f"mean |σ| is {ratios[lowest]:.2f} to {ratios[highest]:.2f} times what it was at first",
    )


def returns_by_noise(evaluations: list[Evaluation]) -> Finding:
    """Compare the returns by the mean weights with those under noise, if the run has both.

    If they differ, either the mean weights alone do not show what was learned, or the noise costs
    returns.
    """
    name = "returns by noise"
    kinds = newest_by_noise(evaluations)
    means = kinds.pop("off", None)
    if means is None or not kinds:
        return Finding(
            name,
            "skipped",
            "no checkpoint was played both ways: `noisynet evaluate RUN` with --noise off and on",
        )
    said = [f"{means.mean:.2f} by the mean weights"]
    apart: list[str] = []
    for noise, one in kinds.items():
        said.append(f"{one.mean:.2f} {_under(noise)}")
        interval = mean_difference_interval(one.returns, means.returns)
        if interval is not None and not interval[0] <= 0 <= interval[1]:
            apart.append(
                f"{_under(noise)} {interval[0]:+.2f} to {interval[1]:+.2f} (95 % of the difference)"
            )
    message = f"{', '.join(said)}, at step {means.step:,}"
    if not apart:
        return Finding(name, "pass", f"{message}: no difference that these games show")
    return Finding(
        name,
        "warn",
        f"{message}: they part, {'; '.join(apart)}",
        "report both, and act as is better; --noise mean:8 acts by the mean of Q over draws. Where "
        "noise costs returns, lower it: noise_schedule or noise_target",
    )


def _under(noise: str) -> str:
    return "under a draw" if noise == "on" else f"by {noise}"
