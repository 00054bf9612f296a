"""A suite's YAML file, which says what trials to run; all mistakes in it are reported at once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ..runs import yaml_text
from ..runs.config import with_present_names
from ..runs.config.section import Count, FewThousand, PositiveInt, Seed
from ..runs.errors import RunError, cut, did_you_mean, first_line, shown
from .published import PublishedName

_MOST_PROBLEMS = 100
_MOST_FIELDS = 200
_MOST_SEEDS = 4096


class SuiteErrors(RunError):
    """All the mistakes in a suite: `problems` has a line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(dict.fromkeys(problems))
        super().__init__("; ".join(self.problems))


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _number(value: object) -> object:
    # YAML 1.1 takes 1e-4 for text, and pydantic true for 1.
    try:
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            return float(value) if isinstance(value, str) else value
    except ValueError:
        pass
    raise ValueError(f"got {shown(value)}, expected a number")


_Number = Annotated[int | float, BeforeValidator(_number), Field(allow_inf_nan=False)]


class Space(_Part):
    """The values that a search may give to one field: a range of numbers, or a list of choices."""

    low: _Number | None = Field(default=None, description="the least value")
    high: _Number | None = Field(default=None, description="the greatest value")
    log: bool = Field(default=False, description="search evenly over the logarithm")
    choices: tuple[Any, ...] = Field(default=(), description="values instead of a range")

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        ends = [one for one in (self.low, self.high) if one is not None]
        if len(ends) != (0 if self.choices else 2) or (self.choices and self.log):
            raise ValueError("expected low and high, or choices alone")
        if self.low is not None and self.high is not None:
            if self.low >= self.high:
                raise ValueError(f"got low {self.low} and high {self.high}, expected low < high")
            if self.log and self.low <= 0:
                raise ValueError(f"got low {self.low}, expected more than 0 for a logarithm")
        return self

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the range, whole numbers or not."""
        assert self.low is not None, "low and high where there are no choices"
        assert self.high is not None, "low and high where there are no choices"
        return self.low, self.high

    @property
    def whole(self) -> bool:
        """Whether the range is one of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


def _by_present_names(value: object) -> object:
    return with_present_names(value) if isinstance(value, Mapping) else value


_ByPresentNames = BeforeValidator(_by_present_names)
"""Marks a mapping by config field, in which fields may also have their former names."""


class Search(_Part):
    """A search by Optuna for the hyperparameters with the largest mean return in the evaluation."""

    trials: PositiveInt = Field(default=20, description="points to try")
    concurrent: PositiveInt = Field(default=4, description="points tried at the same time")
    seed: Seed = Field(default=0, description="seed of the search")
    space: Annotated[dict[str, Space], _ByPresentNames] = Field(
        min_length=1, max_length=_MOST_FIELDS, description="config field: where to look"
    )


def _on_or_off(value: object) -> object:
    # YAML 1.1 reads on and off as true and false.
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


Noise = Annotated[Literal["off", "on"], BeforeValidator(_on_or_off)]


class Evaluation(_Part):
    """The games that are played at the end of each trial."""

    episodes: PositiveInt = Field(default=20, description="whole games")
    noise: tuple[Noise, ...] = Field(
        default=("off",),
        min_length=1,
        description="off: by the mean weights; on: under a new draw at each step",
    )


class Resources(_Part):
    """The resources that a trial takes while it runs."""

    cpus: PositiveInt = Field(default=1, description="CPUs that Ray keeps free for it")
    gpus: Annotated[float, Field(ge=0, le=64, allow_inf_nan=False)] = Field(
        default=0.0, description="GPUs, or a part of one"
    )
    threads: FewThousand | None = Field(
        default=None, ge=1, description="threads of torch and environments; empty: as many as cpus"
    )


def _seeds(value: object) -> object:
    if type(value) is not int:
        return value
    if not 1 <= value <= _MOST_SEEDS:
        raise ValueError(f"got {shown(value)}, expected a list, or from 1 to {_MOST_SEEDS}")
    return list(range(value))


class Suite(_Part):
    """A grid of trials: games × presets × variants × grid × seeds."""

    games: tuple[str, ...] | Literal["atari57"] = Field(
        default=(), description="Atari games by name, such as ms_pacman, or atari57"
    )
    environments: tuple[str, ...] = Field(default=(), description="environment ids")
    presets: tuple[str, ...] = Field(
        default=("auto",),
        min_length=1,
        description="presets or config files; auto: the one made for the environment's kind",
    )
    variants: dict[
        str, Annotated[dict[str, Any], Field(max_length=_MOST_FIELDS), _ByPresentNames]
    ] = Field(default={}, description="name: config fields that it sets")
    grid: Annotated[dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]], _ByPresentNames] = (
        Field(
            default={},
            max_length=_MOST_FIELDS,
            description="config field: values, each with each of the others",
        )
    )
    overrides: Annotated[dict[str, Any], _ByPresentNames] = Field(
        default={},
        max_length=_MOST_FIELDS,
        description="config fields that are the same in all trials",
    )
    seeds: Annotated[tuple[Seed, ...], BeforeValidator(_seeds), Field(min_length=1)] = Field(
        default=(0,), description="seeds, or how many: 3 is 0, 1, 2"
    )
    evaluation: Evaluation = Evaluation()
    resources: Resources = Resources()
    retries: Count = Field(
        default=2,
        description="how often a trial that fails without a new checkpoint is tried again",
    )
    search: Search | None = Field(default=None, description="hyperparameters to search for")
    published: PublishedName = Field(
        default="noisynet",
        description="whose scores stand beside those of Atari games: noisynet (arXiv 1706.10295, "
        "200 million frames), atari100k (arXiv 1906.05243 and 2004.04136, 400,000 frames)",
    )

    @property
    def trials(self) -> int:
        """The number of trials, or of trials per point of a search; counting builds none."""
        sizes = [len(self.presets), len(self.seeds), max(len(self.variants), 1)]
        games = 57 if self.games == "atari57" else len(self.games)
        sizes += [max(games + len(self.environments), 1), *map(len, self.grid.values())]
        return math.prod(sizes)


def ready_suites() -> list[str]:
    """List the names of the suites that come with the package."""
    folder = resources.files("noisynet.suite") / "suites"
    names = [entry.name for entry in folder.iterdir()]
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def read_suite(file: str) -> tuple[str, Suite | None, list[str]]:
    """Read a YAML file, or a suite of the package; return its text, the suite, and the problems.

    Keys with a mistake are left out of the suite, which is None if too little remains. Raises
    SuiteErrors if there is no such file, or if it does not hold YAML settings.
    """
    text = _text(file)
    try:
        values = yaml_text.load(text, unique_keys=False)
        problems = [f"{file}: {one}" for one in _given_twice(yaml.compose(text, yaml.SafeLoader))]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SuiteErrors([f"{file}: not valid YAML: {first_line(error)}"]) from None
    if not isinstance(values, dict):
        raise SuiteErrors([f"{file}: got {type(values).__name__}, expected settings"])
    try:
        suite = Suite.model_validate(values)
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False)
        problems += [f"{file}: {_problem(one)}" for one in found[:_MOST_PROBLEMS]]
        if len(found) > _MOST_PROBLEMS:
            problems.append(f"{file}: and {len(found) - _MOST_PROBLEMS:,} more")
        wrong = {one["loc"][0] for one in found if one["loc"]}
        if not wrong or wrong & {"games", "environments", "presets", "variants", "search"}:
            return text, None, problems
        # The other keys are checked as well: they may have mistakes of their own.
        kept = Suite.model_fields.keys() & values.keys() - wrong
        suite = Suite.model_validate({key: values[key] for key in kept})
    problems += [f"{file}: {one}" for one in _listed_twice(suite)]
    return text, suite, problems


def _text(file: str) -> str:
    if file.endswith((".yaml", ".yml")):
        try:
            return yaml_text.read(Path(file))
        except RunError as error:
            raise SuiteErrors([str(error)]) from None
    ready = ready_suites()
    if file not in ready:
        expected = f"a YAML file or one of {', '.join(ready)}"
        meant = did_you_mean(file, ready)
        raise SuiteErrors([f"FILE: got {shown(file)}, expected {expected}{meant}"])
    return (resources.files("noisynet.suite") / "suites" / f"{file}.yaml").read_text("utf-8")


def _given_twice(node: yaml.Node | None) -> Iterator[str]:
    """Yield a problem for each key that is given twice; YAML would keep the last one."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                yield f"{shown(name)} is given twice (again in line {key.start_mark.line + 1})"
            seen.add(name)
            yield from _given_twice(value)
    elif isinstance(node, yaml.SequenceNode):
        for one in node.value:
            yield from _given_twice(one)


# By pydantic's names of errors whose messages speak of Python's types.
_EXPECTED = {
    "tuple_type": "a list",
    "dict_type": "settings",
    "model_type": "settings",
    "too_short": "at least one",
}
_PARTS = {"evaluation": Evaluation, "resources": Resources, "search": Search, "space": Space}


def _problem(error: Any) -> str:
    """Return one of pydantic's errors as a line in the words of a suite's file."""
    place = [str(part) for part in error["loc"] if not str(part).startswith("function-")]
    name = ".".join(place)
    if error["type"] == "extra_forbidden":
        part = next((_PARTS[one] for one in reversed(place[:-1]) if one in _PARTS), Suite)
        known = list(part.model_fields)
        hint = did_you_mean(place[-1], known) or f"; expected one of {', '.join(known)}"
        return f"unknown key {shown(name)}{hint}"
    if error["type"] == "value_error":
        return f"{cut(name)}: {error.get('ctx', {}).get('error', error['msg'])}"
    message = error["msg"].replace("Input should be ", "expected ")
    if error["type"] in _EXPECTED:
        message = f"expected {_EXPECTED[error['type']]}"
    got = "" if error["type"] == "missing" else f"got {shown(error['input'])}, "
    return f"{cut(name) or 'suite'}: {got}{message}"


def _listed_twice(suite: Suite) -> Iterator[str]:
    """Yield a problem for each value that is listed more than once."""
    lists: dict[str, Sequence[Any]] = {
        "games": () if suite.games == "atari57" else suite.games,
        "environments": suite.environments,
        "presets": suite.presets,
        "seeds": suite.seeds,
        "evaluation.noise": suite.evaluation.noise,
        **{f"grid.{field}": values for field, values in suite.grid.items()},
        **{
            f"search.space.{field}.choices": space.choices
            for field, space in (suite.search.space.items() if suite.search else ())
        },
    }
    for name, values in lists.items():
        for value, times in Counter(map(repr, values)).items():
            if times > 1:
                yield f"{name}: got {cut(value)} twice, expected it once"
