"""The parts of a report: each turns runs into HTML, and notes what it could not show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from ..runs.errors import RunError
from . import plots, tables
from .groups import Variant
from .played import Clip, clip, evaluations
from .record import RunRecord
from .sigma import layer_sigmas

# A smaller film shows too little to be worth its making.
_LEAST_FILM_BYTES = 60_000
_MOST_GAMES = 60
MOST_VARIANTS = 12
"""Variants that figures show."""
_MOST_SHOWN_NOISE = 4
_MOST_PLAYED = 4


class Figures:
    """Collect figures, and hand out the places where they come to stand."""

    def __init__(self) -> None:
        self.all: dict[str, Any] = {}

    def place(self, figure: Any) -> str:
        """Give the HTML of a figure's place; nothing for no figure."""
        if figure is None:
            return ""
        name = f"figure{len(self.all)}"
        self.all[name] = figure
        return f'<div class="plot">{{{{{name}}}}}</div>'


def learning(
    kinds: Sequence[Variant], figures: Figures, notes: list[str], detail: plots.Detail
) -> str:
    """Show the learning curves and the losses of each game."""
    games = list(dict.fromkeys(game for kind in kinds for game in kind.games()))
    if len(games) > _MOST_GAMES:
        notes.append(f"{len(games)} games: the curves of the first {_MOST_GAMES} are shown")
    parts: list[str] = []
    for game in games[:_MOST_GAMES]:
        place = figures.place(plots.learning_curve(game, kinds, detail))
        if not place:
            notes.append(f"{game}: no finished game yet, so there is no learning curve")
        parts.append(place)
        if len(games) <= 2:
            parts.append(figures.place(plots.loss(game, kinds, detail)))
    about = (
        "A point is the mean return of the last games (at most 100 unless the config says "
        "otherwise), true scores, never clipped. The band is the 95 % interval of the mean over "
        "seeds (Student's t). Where runs have different lengths, the mean ends with the shortest. "
        "A step is one decision of the agent."
        + (" Thin lines are single runs." if detail.single else "")
    )
    return f'<h2>Learning</h2><p class="dim">{about}</p>{"".join(parts)}'


def compared(found: dict[str, Any], kinds: Sequence[Variant], figures: Figures) -> str:
    """Show the comparison of the variants, game by game and over all."""
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
    """Show SNR and σ of the layers, effective ε, and the spread of Q beside its gap."""
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
            notes.append(f"{name}: no update was logged yet, so there is no SNR and no σ over time")
        parts.append(f'<div class="pair">{snr}{sigma}</div>')
        parts.append(_histograms(runs[0], name, figures, notes))
    games = list(dict.fromkeys(game for kind in kinds for game in kind.games()))
    for game in games[:_MOST_SHOWN_NOISE]:
        explored = plots.exploration(game, kinds, detail)
        if explored is None:
            notes.append(f"{game}: neither effective ε nor ε was recorded")
        elif any(
            kind.has_noise and not any("noise/effective_epsilon" in run.curves for run in kind.runs)
            for kind in kinds
            if kind.on(game)
        ):
            notes.append(
                f"{game}: runs with noise without a record of effective ε are not in its figure"
            )
        parts.append(figures.place(explored))
        parts.append(figures.place(plots.spread(game, kinds, detail)))
    about = (
        "SNR is the size of a layer's means against that of its σ: it rises as the agent comes to "
        "trust a layer. Effective ε is the share of decisions in which the noise chooses another "
        "action than the mean weights, which is what ε is to ε-greedy (whose random action is the "
        "greedy one now and then)."
    )
    inside = "".join(parts)
    return f'<h2>Noise</h2><p class="dim">{about}</p>{inside}' if inside else ""


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


def played(
    kinds: Sequence[Variant],
    episodes: int,
    film_bytes: int,
    notes: list[str],
    say: Callable[[str], object],
) -> str:
    """Let the newest checkpoints play, and film them; the films share `film_bytes`."""
    everyone = [run for kind in kinds for run in kind.runs]
    if episodes == 0:
        notes.append("no game was played for this report: no evaluation, no film (--episodes 0)")
        return ""
    if len(everyone) > _MOST_PLAYED:
        notes.append(
            f"evaluation and film: the first run of each of at most {_MOST_PLAYED} configs plays, "
            f"not all {len(everyone)} runs"
        )
        everyone = [kind.runs[0] for kind in kinds[:_MOST_PLAYED]]
    results: list[dict[str, Any]] = []
    for run in everyone:
        say(f"Playing {episodes} games with {run.name} …")
        games, problems = evaluations(run, episodes)
        results += games
        notes += problems
    first = list({kind.label: kind.runs[0] for kind in kinds}.values())[:2]
    clips: list[Clip] = []
    if film_bytes // len(first) < _LEAST_FILM_BYTES:
        notes.append("no film: the figures leave no room for one; `noisynet watch` makes it")
        first = []
    for run in first:
        say(f"Filming {run.name} …")
        filmed, problems = clip(run, film_bytes // len(first))
        notes += problems
        clips += [filmed] if filmed is not None else []
    parts: list[str] = []
    if results:
        about = (
            "Whole games from new seeds, as the newest checkpoint plays them, without random "
            "actions: by the mean weights, and under a new draw of noise at every step."
        )
        table = tables.evaluation_table(results)
        parts.append(f'<h2>Evaluation</h2><p class="dim">{about}</p>{table}')
    if clips:
        parts.append("<h2>The agent at play</h2>")
        parts.append('<div class="pair">' + "".join(map(_film, clips)) + "</div>")
    return "".join(parts)


def _film(one: Clip) -> str:
    source = f"data:{one.kind};base64,{one.base64}"
    label = f"{one.run} plays {one.film.environment}"
    if one.kind.startswith("image/"):
        shown = f'<img class="film" alt="{escape(label)}" src="{source}">'
    else:
        shown = (
            f'<video class="film" controls muted loop playsinline preload="auto" '
            f'aria-label="{escape(label)}" src="{source}"></video>'
        )
    end = "to its end" if one.film.ended else f"its first {one.film.steps:,} steps"
    said = f"{label}: {end}, return {one.film.game_return:g}, mean weights."
    if one.film.effective_epsilon is not None:
        said += (
            f" In {one.film.effective_epsilon:.1%} of the draws the noise would have chosen "
            "another action."
        )
    return f'<div>{shown}<p class="dim">{escape(said)}</p></div>'


def made(kinds: Sequence[Variant]) -> str:
    """Show what was run: states, versions, settings."""
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
