"""The parts of a page: each turns runs into HTML, and notes what it could not show."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from ..evaluation.scores import mean_interval
from ..runs import RunError
from ..runs.evaluations import newest_by_noise
from ..runs.record import RunRecord
from . import plots, tables
from .groups import Variant
from .layer_sigmas import layer_sigmas

_MOST_GAMES = 60
MOST_VARIANTS = 12
"""Variants that figures show."""
_MOST_SHOWN_NOISE = 4
_MOST_EVALUATED = 8
_NOISES = {"off": "mean weights", "on": "a draw at every step"}
_EXPLORATION = {"noise/effective_epsilon": "effective ε", "epsilon": "ε of ε-greedy"}
_UNITS = (
    ("dormant units", "share of a layer's units", "dormant/"),
    ("norm of the features", "mean length of a layer's activations", "norm/"),
)
_SPREAD = {"noise/q_gap": "gap of the best two", "noise/q_spread": "spread over draws"}


class Figures:
    """A page's figures by name, each with the place in the HTML that it will take."""

    def __init__(self) -> None:
        self.all: dict[str, Any] = {}

    def place(self, figure: Any) -> str:
        """Add a figure and return the HTML of its place; nothing for no figure."""
        if figure is None:
            return ""
        name = f"figure{len(self.all)}"
        self.all[name] = figure
        return f'<div class="plot">{{{{{name}}}}}</div>'


def learning(
    kinds: Sequence[Variant], figures: Figures, notes: list[str], detail: plots.Detail
) -> str:
    """Build the learning curves and the losses of each game."""
    games = list(dict.fromkeys(game for kind in kinds for game in kind.games()))
    if len(games) > _MOST_GAMES:
        notes.append(f"{len(games)} games: the curves of the first {_MOST_GAMES} are shown")
    parts: list[str] = []
    for game in games[:_MOST_GAMES]:
        place = figures.place(plots.learning_curve(game, kinds, detail))
        if not place:
            notes.append(
                f"{game}: no finished game yet, or none at a step that runs share, so there is no "
                "learning curve"
            )
        parts.append(place)
        if len(games) <= 2:
            title, unit = f"{game}: loss", "mean loss of an update"
            loss = plots.by_variant(title, unit, game, kinds, {"loss": ""}, detail)
            parts.append(figures.place(loss))
    about = (
        "A point is the mean return of the last games (at most 100 unless the config says "
        "otherwise), true scores, never clipped. The band is the 95 % interval of the mean over "
        "seeds (Student's t). Where runs have different lengths, the mean ends with the shortest. "
        "A step is one decision of the agent."
        + (" Thin lines are single runs." if detail.single else "")
    )
    return f'<h2>Learning</h2><p class="dim">{about}</p>{"".join(parts)}'


def compared(found: dict[str, Any], kinds: Sequence[Variant], figures: Figures) -> str:
    """Build the comparison of the variants, game by game and over all."""
    if not any(part["variants"] for part in found["games"]):
        return ""
    about = (
        "A run's score is the mean return of its last training games, at the last step that all "
        "runs of the game reached; one that was solved before keeps its last score. IQM is the "
        "interquartile mean of all runs; its interval is that of the stratified bootstrap over "
        "runs, and is too narrow for few of them. The probability of improvement is that of a run "
        "scoring higher than one of the rival (Agarwal et al., arXiv 2108.13264)."
    )
    parts = []
    for part in found["games"] if len(kinds) > 1 and len(found["games"]) <= 3 else []:
        if len(part["variants"]) > 1:
            title = f"{part['environment']}: scores at step {part['at_step']:,}"
            rows = part["variants"][:MOST_VARIANTS]
            parts.append(figures.place(plots.intervals(title, "return", rows)))
    if found["overall"] and len(found["overall"]["variants"]) > 1:
        rows = found["overall"]["variants"][:MOST_VARIANTS]
        unit = found["overall"]["unit"]
        title = f"Over {found['overall']['games']} games"
        parts.append(figures.place(plots.intervals(title, unit, rows)))
    tables_ = tables.comparison_tables(found)
    return f'<h2>Comparison</h2><p class="dim">{about}</p>{"".join(parts)}{tables_}'


def noise(
    kinds: Sequence[Variant], figures: Figures, notes: list[str], detail: plots.Detail
) -> str:
    """Plot SNR and σ of the layers, effective ε, and the spread of Q beside its gap."""
    parts: list[str] = []
    groups = [(kind, game) for kind in kinds if kind.has_noise for game in kind.games()]
    if len(groups) > _MOST_SHOWN_NOISE:
        notes.append(
            f"noise: layers are shown for {_MOST_SHOWN_NOISE} of {len(groups)} groups of runs"
        )
    for kind, game in groups[:_MOST_SHOWN_NOISE]:
        runs = kind.on(game)
        name = f"{game}, {kind.label}"
        title, unit = f"{name}: SNR", "RMS(μ) / RMS(σ)"
        snr = figures.place(plots.layers(title, unit, runs, "snr/", detail))
        title, unit = f"{name}: σ", "mean |σ|"
        sigma = figures.place(plots.layers(title, unit, runs, "sigma/", detail))
        if not snr:
            notes.append(
                f"{name}: no update was logged yet, or none at a step that runs share, so there is "
                "no SNR and no σ over time"
            )
        parts.append(f'<div class="pair">{snr}{sigma}</div>')
        parts.append(_histograms(runs[0], name, figures, notes))
    games = list(dict.fromkeys(game for kind in kinds for game in kind.games()))
    for game in games[:_MOST_SHOWN_NOISE]:
        title, unit = f"{game}: exploration", "share of actions that explore"
        explored = plots.by_variant(title, unit, game, kinds, _EXPLORATION, detail)
        if explored is None:
            notes.append(
                f"{game}: neither effective ε nor ε was recorded, or at no step that runs share"
            )
        elif any(
            kind.has_noise and not any("noise/effective_epsilon" in run.curves for run in kind.runs)
            for kind in kinds
            if kind.on(game)
        ):
            notes.append(
                f"{game}: runs with noise without a record of effective ε are not in its figure"
            )
        parts.append(figures.place(explored))
        title, unit = f"{game}: scale of the noise", "scale of σ ⊙ ε"
        scale = plots.by_variant(title, unit, game, kinds, {"noise/scale": ""}, detail)
        parts.append(figures.place(scale))
        title = f"{game}: gap and spread of Q"
        parts.append(figures.place(plots.by_variant(title, "Q", game, kinds, _SPREAD, detail)))
    about = (
        "SNR is the size of a layer's means against that of its σ: it rises as the agent comes to "
        "trust a layer. Effective ε is the share of decisions in which the noise chooses another "
        "action than the mean weights, which is what ε is to ε-greedy (whose random action is the "
        "greedy one now and then)."
    )
    inside = "".join(parts)
    return f'<h2>Noise</h2><p class="dim">{about}</p>{inside}' if inside else ""


def alive(
    kinds: Sequence[Variant], figures: Figures, notes: list[str], detail: plots.Detail
) -> str:
    """Plot the share of dormant units and the norm of the features of each hidden layer."""
    groups = [(kind, game) for kind in kinds for game in kind.games()]
    parts: list[str] = []
    for kind, game in groups[:_MOST_SHOWN_NOISE]:
        pair = [
            figures.place(
                plots.layers(f"{game}, {kind.label}: {what}", unit, kind.on(game), family, detail)
            )
            for what, unit, family in _UNITS
        ]
        if any(pair):
            parts.append(f'<div class="pair">{"".join(pair)}</div>')
    if not parts:
        return ""
    if len(groups) > _MOST_SHOWN_NOISE:
        notes.append(
            f"units: layers are shown for {_MOST_SHOWN_NOISE} of {len(groups)} groups of runs"
        )
    about = (
        "A unit is dormant where its mean activity, over observations and draws of noise, is at "
        "most 2.5 % of its layer's mean (arXiv 2302.12902). Units that stay dormant learn nothing "
        "more; where all of a layer are, nothing is learned at all."
    )
    return f'<h2>Units</h2><p class="dim">{about}</p>{"".join(parts)}'


def hidden(kinds: Sequence[Variant], figures: Figures, notes: list[str]) -> str:
    """Plot returns by the mean weights and under noise, of runs that were evaluated both ways."""
    places: list[str] = []
    shown = [run for kind in kinds if kind.has_noise for run in kind.runs]
    both = [(run, found) for run in shown if (found := newest_by_noise([*run.evaluations]))]
    if len(both) > _MOST_EVALUATED:
        notes.append(
            f"returns by noise: the first {_MOST_EVALUATED} of {len(both)} evaluated runs are shown"
        )
    for run, found in both[:_MOST_EVALUATED]:
        rows = [
            {
                "label": _NOISES.get(noise, f"mean of Q over {noise.removeprefix('mean:')} draws"),
                "iqm": one.mean,
                "interval": mean_interval(one.returns),
                "runs": len(one.returns),
                "scores": list(one.returns),
            }
            for noise, one in found.items()
        ]
        step = next(iter(found.values())).step
        title = f"{run.name}: returns at step {step:,}"
        figure = plots.intervals(title, "return", rows, centre="mean", each="game")
        places.append(figures.place(figure))
    if not places:
        return ""
    about = (
        "Games that `noisynet evaluate` played by the mean weights, under a new draw at every "
        "step, or by the mean of Q over several draws, with the 95 % interval of the mean "
        "(Student's t). Where they part, one of them says little of what was learned."
    )
    return f'<h2>Returns by noise</h2><p class="dim">{about}</p>{"".join(places)}'


def _histograms(run: RunRecord, name: str, figures: Figures, notes: list[str]) -> str:
    try:
        found, problems = layer_sigmas(run.path)
    except RunError as error:
        notes.append(f"{name}: no histograms of σ: {error}")
        return ""
    notes += [f"{name}: {problem}" for problem in problems]
    places = "".join(figures.place(plots.sigma_histogram(layer)) for layer in found)
    return (
        f"<h3>σ at the start and now: {escape(name)}, seed {run.seed}</h3>"
        f'<div class="pair">{places}</div>'
    )


def made(kinds: Sequence[Variant]) -> str:
    """Build the tables of what was run: states, versions, settings."""
    rows = tables.run_rows(kinds)
    parts = ["<h2>What was run</h2>", tables.table(tables.RUN_HEADS, rows)]
    everyone = [run for kind in kinds for run in kind.runs]
    parts += ["<h3>Made with</h3>", tables.made_table(everyone)]
    different = tables.settings_table(kinds[:MOST_VARIANTS])
    if different:
        parts += ["<h3>Settings that differ</h3>", different]
    for kind in kinds[:MOST_VARIANTS]:
        config = escape(kind.runs[0].config.to_yaml())
        label = f"config.yaml of {kind.label} ({kind.runs[0].name})"
        parts.append(f"<details><summary>{escape(label)}</summary><pre>{config}</pre></details>")
    return "".join(parts)
