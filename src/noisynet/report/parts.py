"""The sections of a page: functions that turn runs into HTML and note what they cannot show."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from ..evaluation.scores import mean_interval
from ..runs import RunError
from ..runs.evaluations import newest_by_noise
from ..runs.record import RunRecord
from . import plots, tables
from .comparison import LEAST_RUNS
from .groups import Variant
from .layer_sigmas import layer_sigmas

_MOST_GAMES = 60
MOST_VARIANTS = 12
"""The most variants that figures show."""
_MOST_SHOWN_NOISE = 4
_MOST_EVALUATED = 8
_NOISES = {"off": "mean weights", "on": "a draw at every step"}
_EXPLORATION = {"noise/effective_epsilon": "effective ε", "epsilon": "ε of ε-greedy"}
_NOISE = (("SNR: RMS(μ) / RMS(σ)", "snr/"), ("mean |σ|", "sigma/"))
_UNITS = (("share of dormant units", "dormant/"), ("mean norm of the features", "norm/"))
_SPREAD = {"noise/q_gap": "gap of the best two", "noise/q_spread": "spread over draws"}


class Figures:
    """A page's figures by name, each with a placeholder in the HTML."""

    def __init__(self, kinds: Sequence[Variant]) -> None:
        """Make an axis of steps for each game, so that all its figures pan and zoom together."""
        self.all: dict[str, Any] = {}
        self.axes = {
            game: plots.steps_axis([run for kind in kinds for run in kind.on(game)])
            for kind in kinds
            for game in kind.games()
        }

    def place(self, figure: Any) -> str:
        """Add a figure and return the HTML of its placeholder; an empty string for None."""
        if figure is None:
            return ""
        name = f"figure{len(self.all)}"
        self.all[name] = figure
        return f'<div class="plot">{{{{{name}}}}}</div>'


def section(heading: str, about: str, parts: Sequence[str]) -> str:
    """Build a section that begins with a text about it; empty if all its parts are."""
    inside = "".join(parts)
    return inside and f'<h2>{heading}</h2><p class="dim">{about}</p>{inside}'


def learning_curves(
    kinds: Sequence[Variant], figures: Figures, notes: list[str], detail: plots.Detail
) -> str:
    """Build the learning curve of each game, and a text that explains the curves."""
    games = list(figures.axes)
    if len(games) > _MOST_GAMES:
        notes.append(f"{len(games)} games: the curves of the first {_MOST_GAMES} are shown")
    places: list[str] = []
    for game in games[:_MOST_GAMES]:
        curve = plots.learning_curve(game, kinds, figures.axes[game], detail)
        places.append(figures.place(curve))
        if curve is None:
            notes.append(f"{game}: no finished game yet, so there is no learning curve")
    if not any(places):
        return ""
    windows = sorted({run.config.training.solved_games for kind in kinds for run in kind.runs})
    most = max(len(kind.on(game)) for kind in kinds for game in kind.games())
    few = min(sum(len(kind.on(game)) for kind in kinds) for game in games) <= 2
    about = (
        f"A line is the mean return of the last {' or '.join(map(str, windows))} training games, "
        "or of as many as there are yet. "
    )
    if few and detail.single:
        about += (
            "A dot is a single game (of many games, the best and the worst of each short stretch). "
        )
    if most > 1:
        about += (
            "With several runs it is the mean over them, as far as the shortest goes"
            + (", beside a thin line for each run" if detail.single else "")
            + "; the band is the 95 % interval of that mean (Student's t), from three runs on. "
        )
    about += "Returns are true scores, never clipped; a step is one decision of the agent."
    pairs = len(games) > 2
    shown = f'<div class="pair">{"".join(places)}</div>' if pairs else "".join(places)
    return f'{shown}<p class="dim">{about}</p>'


def losses(kinds: Sequence[Variant], figures: Figures, detail: plots.Detail) -> str:
    """Plot the loss of each game, unless there are more than two games."""
    places = [
        figures.place(plots.by_variant(f"{game}: loss", game, kinds, {"loss": ""}, axis, detail))
        for game, axis in figures.axes.items()
        if len(figures.axes) <= 2
    ]
    return section("Loss", "The mean of the loss over the updates since the last record.", places)


def comparison(found: dict[str, Any], kinds: Sequence[Variant], figures: Figures) -> str:
    """Build the comparison of runs, by game and over all games; empty for a single run."""
    parts = [part for part in found["games"] if part["variants"]]
    if sum(row["runs"] for part in parts for row in part["variants"]) < 2:
        return ""
    about = (
        "These are scores in training: a run's is the mean return of its last training games, "
        "played while it explored and learned, at the last step that all runs of the game reached; "
        "a run that was solved before keeps its last score. Games that an agent plays after its "
        "training, in an evaluation, are another measure, and may put variants in another order. "
        "IQM, the dot, is the interquartile mean of all runs, and a tick is one run. Its interval, "
        f"the bar, is that of the stratified bootstrap over runs, from {LEAST_RUNS} runs on; it is "
        "too narrow for few of them. The probability of improvement is that of a run scoring "
        "higher than one of the rival (Agarwal et al., arXiv 2108.13264)."
    )
    places, labels = [], [kind.label for kind in kinds]
    for part in parts if len(parts) <= 3 else []:
        title = f"{part['environment']}: score at step {part['at_step']:,}"
        runs = [run for kind in kinds for run in kind.on(part["environment"])]
        curves = [one for run in runs if (one := run.curves.get("game/mean_return")) is not None]
        # The axis spans all returns seen in training, so that a small difference looks small.
        seen = [float(end) for one in curves for end in (one.low.min(), one.high.max())]
        rows = part["variants"][:MOST_VARIANTS]
        places.append(figures.place(plots.intervals(title, rows, labels, around=seen)))
    if found["overall"]:
        title = f"{found['overall']['games']} games: {found['overall']['unit']}"
        rows = found["overall"]["variants"][:MOST_VARIANTS]
        places.append(figures.place(plots.intervals(title, rows, labels, around=[0])))
    rivals = any(len(part["variants"]) > 1 for part in parts)
    heading = "Comparison" if rivals else "Scores over seeds"
    tables_ = tables.comparison_tables(found)
    return f'<h2>{heading}</h2>{"".join(places)}<p class="dim">{about}</p>{tables_}'


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
        name = f"{game}, {kind.label}"
        parts.append(_by_layer(_NOISE, kind, game, figures, detail))
        if not parts[-1]:
            notes.append(f"{name}: no update was logged yet, so there is no SNR and no σ over time")
        parts.append(_histograms(kind.on(game)[0], name, figures, notes))
    for game, axis in [*figures.axes.items()][:_MOST_SHOWN_NOISE]:
        curves = {tag for kind in kinds for run in kind.on(game) for tag in run.curves}
        named = " and ".join(word for tag, word in _EXPLORATION.items() if tag in curves)
        explored = plots.by_variant(f"{game}: {named}", game, kinds, _EXPLORATION, axis, detail)
        if explored is None:
            notes.append(f"{game}: neither effective ε nor ε was recorded")
        elif any(
            kind.has_noise
            and not any("noise/effective_epsilon" in run.curves for run in kind.on(game))
            for kind in kinds
            if kind.on(game)
        ):
            notes.append(
                f"{game}: runs with noise without a record of effective ε are not in its figure"
            )
        parts.append(figures.place(explored))
        title = f"{game}: scale of σ ⊙ ε"
        scale = plots.by_variant(title, game, kinds, {"noise/scale": ""}, axis, detail)
        parts.append(figures.place(scale))
        title = f"{game}: gap and spread of Q"
        parts.append(figures.place(plots.by_variant(title, game, kinds, _SPREAD, axis, detail)))
    about = (
        "SNR is the size of a layer's means against that of its σ: it rises as the agent comes to "
        "trust a layer. Lines are means over the runs of a variant. Effective ε is the share of "
        "decisions in which the noise chooses another action than the mean weights, which is what "
        "ε is to ε-greedy (whose random action is the greedy one now and then). The gap is by how "
        "much the best action's Q exceeds the second best's, by the mean weights; the spread is "
        "the standard deviation of Q over draws. The noise explores unless the spread is small "
        "against the gap."
    )
    return section("Noise", about, parts)


def units(
    kinds: Sequence[Variant], figures: Figures, notes: list[str], detail: plots.Detail
) -> str:
    """Plot the share of dormant units and the norm of the features of each hidden layer."""
    groups = [(kind, game) for kind in kinds for game in kind.games()]
    parts = [
        _by_layer(_UNITS, kind, game, figures, detail) for kind, game in groups[:_MOST_SHOWN_NOISE]
    ]
    if any(parts) and len(groups) > _MOST_SHOWN_NOISE:
        notes.append(
            f"units: layers are shown for {_MOST_SHOWN_NOISE} of {len(groups)} groups of runs"
        )
    about = (
        "A unit is dormant where its mean activity, over observations and draws of noise, is at "
        "most 2.5 % of its layer's mean (arXiv 2302.12902). Units that stay dormant learn nothing "
        "more; where all of a layer are, nothing is learned at all."
    )
    return section("Units", about, parts)


def _by_layer(
    families: Sequence[tuple[str, str]],
    kind: Variant,
    game: str,
    figures: Figures,
    detail: plots.Detail,
) -> str:
    """Plot families of figures that each layer has, (title, family), side by side."""
    pair = "".join(
        figures.place(plots.layers(title, kind.on(game), family, figures.axes[game], detail))
        for title, family in families
    )
    return pair and f'<h3>{escape(f"{game}, {kind.label}")}</h3><div class="pair">{pair}</div>'


def returns_by_noise(kinds: Sequence[Variant], figures: Figures, notes: list[str]) -> str:
    """Plot the returns of runs whose evaluations differ in the noise, such as `off` and `on`."""
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
        step, labels = next(iter(found.values())).step, [row["label"] for row in rows]
        title = f"{run.name}: returns at step {step:,}"
        figure = plots.intervals(title, rows, labels, centre="mean", each="game")
        places.append(figures.place(figure))
    about = (
        "Games that <code>noisynet evaluate</code> played by the mean weights, under a new draw at "
        "every step, or by the mean of Q over several draws, with the 95 % interval of the mean "
        "(Student's t). Where they differ, do not judge the agent by one of them alone."
    )
    return section("Returns by noise", about, places)


def _histograms(run: RunRecord, name: str, figures: Figures, notes: list[str]) -> str:
    try:
        found, problems = layer_sigmas(run.path)
    except RunError as error:
        notes.append(f"{name}: no histograms of σ: {error}")
        return ""
    notes += [f"{name}: {problem}" for problem in problems]
    places = "".join(figures.place(plots.sigma_histogram(layer)) for layer in found)
    return places and (
        f"<h3>σ at the start and now: {escape(name)}, seed {run.seed}</h3>"
        f'<div class="pair">{places}</div>'
    )


def configs_and_versions(kinds: Sequence[Variant]) -> str:
    """Build the tables of what was run: states, versions, settings."""
    parts = ["<h2>What was run</h2>", tables.runs_table(kinds)]
    everyone = [run for kind in kinds for run in kind.runs]
    parts += ["<h3>Made with</h3>", tables.provenance_table(everyone)]
    different = tables.settings_table(kinds[:MOST_VARIANTS])
    if different:
        parts += ["<h3>Settings that differ</h3>", different]
    for kind in kinds[:MOST_VARIANTS]:
        config = escape(kind.config.to_yaml())
        label = f"config.yaml of {kind.label} ({kind.runs[0].name})"
        parts.append(f"<details><summary>{escape(label)}</summary><pre>{config}</pre></details>")
    return "".join(parts)
