"""The trials of a suite, each with a run's config and the name of its folder."""

from __future__ import annotations

import itertools
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..assemble import make_environments
from ..envs import UnusableEnvironment
from ..evaluation.scores import atari57_games
from ..runs import config as run_config
from ..runs.config import SECTION_OF, Config, option_name
from ..runs.errors import RunError, cut, did_you_mean, shown
from .file import Space, Suite, SuiteErrors
from .published import atari_environment, atari_game

AUTO = "auto"
"""Stands for the preset that is made for the environment's kind."""

MOST_TRIALS = 20_000
_LONGEST_NAME = 240


@dataclass(frozen=True)
class Trial:
    """One run of a suite. Its name is its folder's, and the same whenever the suite is read."""

    name: str
    label: str
    """What is the same over games and seeds: preset, variant and grid values."""
    config: Config

    @property
    def game(self) -> str:
        """The environment's id."""
        return self.config.environment.environment

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.config.training.seed


@dataclass(frozen=True)
class _Cell:
    """One cell of the grid, with all its seeds."""

    environment: str | None
    preset: str
    fields: dict[str, Any]
    """Config fields that are set."""
    parts: tuple[str, ...]
    """The parts that its label consists of."""


def grid_trials(suite: Suite) -> list[Trial]:
    """List the trials of a suite without a search; raises SuiteErrors with all that is wrong."""
    problems: list[str] = []
    trials: list[Trial] = []
    for cell in _checked_cells(suite, {}, problems):
        try:
            trials += _trials(suite, cell)
        except RunError as error:
            where = " ".join(cell.parts) or cell.environment or cell.preset
            problems.append(f"{cut(where)}: {error}")
    for name, times in Counter(trial.name for trial in trials).items():
        if times > 1:
            problems.append(f"two trials would share the folder {cut(name)}")
        if len(name.encode()) > _LONGEST_NAME:
            problems.append(
                f"{cut(name)}: a name of {len(name):,} characters, expected at most "
                f"{_LONGEST_NAME}: give its values as a variant, by a short name"
            )
    problems += _unusable(trials)
    if problems:
        raise SuiteErrors(problems)
    return trials


class SearchSpace:
    """The one cell of the grid whose fields a search varies, and the trials of its points."""

    def __init__(self, suite: Suite) -> None:
        """Check the suite, and points of every range; raises SuiteErrors with all that is wrong."""
        assert suite.search is not None, "a suite with a search"
        space = suite.search.space
        self._suite = suite
        problems: list[str] = []
        cells = _checked_cells(suite, space, problems)
        if len(cells) > 1:
            problems.append(
                f"search: got {len(cells)} different cells of games, presets, variants and grid, "
                "expected one: values that suit one game need not suit another"
            )
        problems += [
            f"search.space.{name}: also set by the suite, expected it in one place"
            for name in space
            if any(name in cell.fields for cell in cells)
        ]
        if problems:
            raise SuiteErrors(problems)
        self._cell = cells[0]
        trials: list[Trial] = []
        for point in _samples(space):
            try:
                trials += self.trials(point)
            except RunError as error:
                problems.append(f"search.space: at {point}: {error}")
        problems += _unusable(trials)
        if problems:
            raise SuiteErrors(problems)

    def trials(self, point: Mapping[str, Any]) -> list[Trial]:
        """Return a point's trials, one for each seed; their names depend only on its values."""
        # YAML has dates and sets, which no field accepts: it is the field that says so.
        code = zlib.crc32(json.dumps(point, sort_keys=True, default=repr).encode())
        values = {name: list(one) if isinstance(one, tuple) else one for name, one in point.items()}
        cell = replace(
            self._cell,
            fields={**self._cell.fields, **values},
            parts=(*self._cell.parts, f"search-{code:08x}"),
        )
        return _trials(self._suite, cell)


def _samples(space: Mapping[str, Space]) -> Iterator[dict[str, Any]]:
    """Yield points that together contain each choice, and both ends of each range.

    They also contain a fraction of a range that is not of whole numbers: not every field has them.
    """
    values = {name: one.choices or _of_range(one) for name, one in space.items()}
    for number in range(max(map(len, values.values()))):
        yield {name: those[min(number, len(those) - 1)] for name, those in values.items()}


def _of_range(space: Space) -> tuple[float, ...]:
    low, high = space.ends
    return (low, high) if space.whole else (low, low + 0.381966 * (high - low), high)


def _checked_cells(suite: Suite, space: Mapping[str, Space], problems: list[str]) -> list[_Cell]:
    """List the cells of the grid; add mistakes to `problems`, and leave them out of the cells."""
    if suite.trials > MOST_TRIALS:
        problems.append(f"got {suite.trials:,} trials, expected at most {MOST_TRIALS:,}")
        return []
    environments = _environments(suite, problems)
    named = suite.games or suite.environments  # if any are named, their mistakes are told above
    if not named and AUTO in suite.presets:
        problems.append(
            "games, environments: got none, expected some, or presets that name their own game"
        )
    sources = {
        "overrides": suite.overrides,
        "grid": suite.grid,
        "search.space": space,
        **{f"variants.{name}": fields for name, fields in suite.variants.items()},
    }
    for source, names in sources.items():
        problems += [f"{source}: {problem}" for name in names if (problem := _unknown(name))]
    presets = [preset for preset in _presets(suite, problems) if environments or preset != AUTO]
    cells = [
        _Cell(
            environment,
            preset,
            {
                name: value
                for name, value in {**suite.overrides, **fields, **dict(chosen)}.items()
                if _unknown(name) is None
            },
            (
                *([preset] if preset != AUTO else []),
                *([variant] if variant else []),
                *(f"{name}={_short(value)}" for name, value in chosen),
            ),
        )
        for environment in environments or [None]
        for preset in presets
        for variant, fields in suite.variants.items() or [("", {})]
        for chosen in itertools.product(
            *([(name, value) for value in values] for name, values in suite.grid.items())
        )
    ]
    return _with_valid_fields(cells, problems)


def _environments(suite: Suite, problems: list[str]) -> list[str]:
    """List the environment ids of games and environments."""
    known = atari57_games()
    games = known if suite.games == "atari57" else suite.games
    problems += [
        f"games: got {shown(game)}, expected names of Atari's 57, such as ms_pacman"
        f"{did_you_mean(game, known)}"
        for game in games
        if game not in known
    ]
    ids = [atari_environment(game) for game in games if game in known]
    both = [one for one in suite.environments if one in ids]
    problems += [f"environments: {one} is among the games already" for one in both]
    return [*ids, *suite.environments]


def _presets(suite: Suite, problems: list[str]) -> list[str]:
    """List the presets that can be read."""
    good: list[str] = []
    for preset in suite.presets:
        try:
            if preset != AUTO:
                run_config.load(preset)
        except RunError as error:
            problems.append(str(error))
        else:
            good.append(preset)
    return good


def _unknown(name: str) -> str | None:
    """Return why a suite cannot set a field of that name; None where it can."""
    own = {"seed": "seeds", "environment": "environments", "threads": "resources.threads"}
    if name in own:
        return f"{name} is set by `{own[name]}`"
    if name in SECTION_OF:
        return None
    return f"unknown key {shown(name)}{did_you_mean(name, SECTION_OF)}"


def _with_valid_fields(cells: Sequence[_Cell], problems: list[str]) -> list[_Cell]:
    """Leave out invalid values, each tried by itself: a config reports only its first mistake."""
    base = run_config.load("control")
    tried: dict[str, str | None] = {}

    def is_valid(name: str, value: Any) -> bool:
        key = f"{name}={value!r}"
        if key not in tried:
            tried[key] = None
            try:
                base.replaced(**{name: value})
            except RunError as error:
                # An error about another field says nothing about the value itself.
                said = str(error).removeprefix("config: ")
                if said.startswith(f"{option_name(name)}:"):
                    tried[key] = said
        return tried[key] is None

    valid = [
        replace(cell, fields={k: v for k, v in cell.fields.items() if is_valid(k, v)})
        for cell in cells
    ]
    problems += [said for said in tried.values() if said is not None]
    return valid


def _trials(suite: Suite, cell: _Cell) -> list[Trial]:
    """Build the trials of a cell; raises RunError if its fields do not fit together."""
    asked = suite.resources
    fields = {**cell.fields, "threads": asked.threads or asked.cpus}
    source = cell.preset
    if cell.preset == AUTO:
        assert cell.environment is not None, "checked before"
        source = cell.environment
    elif cell.environment is not None:
        fields["environment"] = cell.environment
    first = run_config.load(source, fields)
    if (actors := first.scale.actors) is not None:
        raise RunError(f"actors: got {actors}, expected none: a suite's trials play for themselves")
    label = " ".join(_stem(part) for part in cell.parts) or first.exploration.exploration
    environment = first.environment.environment
    game = _slug(atari_game(environment) or environment.lower())
    return [
        Trial(f"{game}-{_slug(label)}-seed{seed}", label, first.replaced(seed=seed))
        for seed in dict.fromkeys(suite.seeds)
    ]


def _stem(part: str) -> str:
    """Return a part of a label; of a preset's file, the name without folder and ending."""
    return re.sub(r"(?:.*/)?([^/]+)\.ya?ml$", r"\1", part)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._=]+", "-", text).strip("-.") or "run"


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "x".join(map(_short, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _unusable(trials: Sequence[Trial]) -> list[str]:
    """Return an error for each environment that cannot be made; trying is the only way to know."""
    first = {trial.game: trial for trial in reversed(trials)}
    problems: list[str] = []
    for trial in first.values():
        try:
            make_environments(trial.config, count=1).close()
        except UnusableEnvironment as error:
            problems.append(str(error))
    return problems
