"""The configuration of a run: all sections, and every field by its bare name.

Field names are unique over the sections, so that the command line can take each by its bare name
(`--learning-rate`). A run's `config.yaml` holds all of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Self

import pydantic
import yaml
from pydantic import BaseModel, Field, model_validator
from pydantic_core import ErrorDetails

from ..errors import RunError, cut, did_you_mean, shown
from . import former_versions, spelling
from .accepted import Accepted, accepted
from .actor_critic import ActorCriticSection
from .agreement import Fits
from .changes import MAY_CHANGE, Spans
from .conditions import Acts
from .environment import EnvironmentSection
from .exploration import ExplorationSection
from .learning import LearningSection
from .network import NetworkSection
from .plasticity import PlasticitySection
from .renaming import renamed, renamed_in_sections
from .rollouts import RolloutsSection
from .scale import ScaleSection
from .section import Section
from .training import TrainingSection


class Config(Section):
    """The configuration of a run: everything needed to repeat it."""

    preset: str = Field(default="", description="the name that the run was started with")
    made_with: dict[str, str] = Field(
        default={}, description="versions and processor that the run was started with"
    )
    environment: EnvironmentSection
    network: NetworkSection = NetworkSection()
    exploration: ExplorationSection = ExplorationSection()
    learning: LearningSection = LearningSection()
    rollouts: RolloutsSection = RolloutsSection()
    actor_critic: ActorCriticSection = ActorCriticSection()
    plasticity: PlasticitySection = PlasticitySection()
    scale: ScaleSection = ScaleSection()
    training: TrainingSection = TrainingSection()

    @model_validator(mode="before")
    @classmethod
    def _of_former_versions(cls, values: Any) -> Any:
        """Accept what former versions wrote, and American spellings."""
        if not isinstance(values, dict):
            return values
        return renamed_in_sections(former_versions.with_present_sections(values), spelling.OURS)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for _, _, info in fields():
            for fits in info.metadata:
                conflict = fits.conflict(self) if isinstance(fits, Fits) else None
                if conflict is not None:
                    raise ValueError(conflict)
        return self

    def replaced(self, **fields: Any) -> Config:
        """Return a copy with some fields, given by their bare names, set to other values."""
        return parse(overridden(self.model_dump(), fields), "config", fields)

    def why_unused(self, field: str) -> str | None:
        """Return why a field has no effect in this config; None if it has one."""
        for acts in _INFO_OF[field].metadata:
            if isinstance(acts, Acts) and not acts.when(self):
                return acts.otherwise(self)
        return None

    def check_used(self, given: Iterable[str]) -> None:
        """Raise RunError for the first of the given fields that has no effect in this config."""
        for field in given:
            reason = self.why_unused(field)
            if reason is not None:
                raise RunError(f"{option_name(field)}: would do nothing: {reason}")

    def effective_fields(self) -> dict[str, bool | float | str]:
        """Return the fields that have an effect, by name, to compare runs by; lists become text."""
        return {
            field: value if isinstance(value, bool | int | float | str) else str(value)
            for fields in self.by_section().values()
            for field, value in fields.items()
            if self.why_unused(field) is None
        }

    def changes_since(self, made_with: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        """Return a line for each field that has changed since a checkpoint was made.

        The first list is of fields that may not change, the second of those that may. `made_with`
        is what `by_section` returned then; a field that it lacks counts as unchanged.
        """
        refused = former_versions.gone_since(made_with)
        made_with = renamed_in_sections(made_with, former_versions.RENAMED)
        noted: list[str] = []
        values = self.by_section()
        for section, name, info in fields():
            value = values[section][name]
            former = made_with.get(section, {}).get(name, value)
            if value != former and self.why_unused(name) is None:
                # An object that only the training program had may get an importable name.
                named = name in MAY_BE_OWN and str(former).startswith("<")
                changes = noted if named or MAY_CHANGE in info.metadata else refused
                changes.append(f"{name} was {shown(former)}, is {shown(value)}")
        return refused, noted

    def spanning(self) -> list[str]:
        """Return the fields whose schedules end at the last step, and so stretch with `steps`."""
        return [
            name
            for section, name, info in fields()
            for spans in info.metadata
            if isinstance(spans, Spans)
            and getattr(getattr(self, section), name) is not None
            and self.why_unused(name) is None
            and spans.when(self)
        ]

    def by_section(self) -> dict[str, dict[str, Any]]:
        """Return every field by its section, as plain JSON values."""
        return self.model_dump(mode="json", include=set(SECTIONS))

    @property
    def learns_beside_play(self) -> bool:
        """Whether one process plays, and learns from a replay between its steps."""
        return self.learning.has_replay and self.scale.actors is None

    @property
    def can_overlap(self) -> bool:
        """Whether one process can play while it learns from earlier steps."""
        return self.learning.algorithm in ("q_learning", "pqn") and self.scale.actors is None

    @property
    def overlaps(self) -> bool:
        """Whether one process does play while it learns from earlier steps."""
        return self.training.overlap and self.can_overlap

    @property
    def why_not_beside_play(self) -> str:
        """Why the run does not play and learn from a replay in one process."""
        if self.scale.actors is not None:
            return "sampler actors play, and the learner takes what they send"
        return f"{self.learning.algorithm} learns from rollouts"

    @property
    def why_not_overlap(self) -> str:
        """Why one process cannot play while it learns from earlier steps."""
        if self.scale.actors is not None:
            return self.why_not_beside_play
        return f"{self.learning.algorithm} learns from rollouts, each in one update"

    def to_yaml(self) -> str:
        """Write the config as YAML, in the order of its fields."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


SECTIONS = (
    "environment", "network", "exploration", "learning", "rollouts", "actor_critic",
    "plasticity", "scale", "training",
)  # fmt: skip


MAY_BE_OWN = ("environment", "torso", "own_network")
"""Fields that may name the user's own code, as `module:function`."""


def about(section: str) -> str:
    """Return a one-line description of a section, for help and docs."""
    model = Config.model_fields[section].annotation
    assert isinstance(model, type)
    return (model.__doc__ or section).splitlines()[0].removesuffix(".")


def may_change() -> set[str]:
    """Return the names of the fields that may change when a run is resumed."""
    return {name for _, name, info in fields() if MAY_CHANGE in info.metadata}


def fields() -> Iterator[tuple[str, str, pydantic.fields.FieldInfo]]:
    """Yield (section, field, info) for every field that the command line accepts."""
    for section in SECTIONS:
        model = Config.model_fields[section].annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        for name, info in model.model_fields.items():
            yield section, name, info


SECTION_OF = {name: section for section, name, _ in fields()}
_INFO_OF = {name: info for _, name, info in fields()}
ACCEPTED: dict[str, Accepted] = {name: accepted(info) for name, info in _INFO_OF.items()}
"""The values that each field accepts, by the field's name."""


def parse(values: Mapping[str, Any], origin: str, given: Collection[str] = ()) -> Config:
    """Validate nested values; raises RunError with one line: field, value, and accepted values.

    The line also names `origin`, unless the field is one of those `given` by the caller.
    """
    try:
        return Config.model_validate({key: _read(key, part) for key, part in values.items()})
    except pydantic.ValidationError as error:
        problems = error.errors(include_url=False)
        # A misspelt key often makes another one missing; the misspelling is what to report.
        problem = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
        place = "" if given and set(problem["loc"]) & set(given) else f"{cut(origin, 200)}: "
        raise RunError(f"{place}{_in_words(problem)}") from None


def _read(section: str, part: Any) -> Any:
    """Return a section with texts read as on the command line: YAML takes 1e6 and 64,64 for one."""
    if section not in SECTIONS or not isinstance(part, Mapping):
        return part
    return {
        name: ACCEPTED[name].read(value) if name in ACCEPTED and isinstance(value, str) else value
        for name, value in part.items()
    }


def _in_words(problem: ErrorDetails) -> str:
    place = [str(part) for part in problem["loc"]]
    name = ".".join(part for part in place if not part.startswith("function-"))
    if problem["type"] == "value_error":
        return str(problem.get("ctx", {}).get("error", problem["msg"]))
    if problem["type"] == "extra_forbidden":
        known = list(SECTION_OF) if len(place) > 1 else [*SECTIONS, "extends"]
        if place[-1] in SECTION_OF:
            return f"unknown key {shown(name)}: its place is {SECTION_OF[place[-1]]}.{place[-1]}"
        return f"unknown key {shown(name)}{did_you_mean(place[-1], known)}"
    got = "nothing" if problem["type"] == "missing" else shown(problem["input"])
    field = place[1] if len(place) > 1 and place[1] in SECTION_OF else None
    if place == ["environment"] and problem["type"] == "missing":
        field = "environment"  # the only field that its section requires
    if field is not None:
        takes = ACCEPTED[field]
        near = None if problem["type"] == "missing" else takes.near(problem["input"])
        meant = "" if near is None else f"; did you mean {near}?"
        what = f"expected {takes}{meant} ({_INFO_OF[field].description})"
        return f"{option_name(field)}: got {got}, {what}"
    if name in SECTIONS:
        return f"{name}: got {got}, expected fields and their values"
    message = problem["msg"].replace("Input should be ", "expected ")
    return f"{cut(name) or 'config'}: got {got}, {message}"


def option_name(field: str) -> str:
    """Return the command line's option for a field, such as `--learning-rate`."""
    return "--" + field.replace("_", "-")


def with_present_names(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields by their present, British names; former and American ones are converted."""
    return renamed(renamed(fields, spelling.OURS), former_versions.RENAMED)


def overridden(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values with some fields, given by their bare names, set to other values.

    Raises RunError for a name that no field has.
    """
    nested = {
        key: dict(part) if isinstance(part, Mapping) else part for key, part in values.items()
    }
    for name, value in with_present_names(overrides).items():
        if name in ("preset", "made_with"):
            nested[name] = value
        elif name not in SECTION_OF:
            raise RunError(
                f"config: got {shown(name)}, expected the name of a field"
                f"{did_you_mean(name, SECTION_OF)}"
            )
        else:
            section = nested.setdefault(SECTION_OF[name], {})
            if isinstance(section, dict):
                section[name] = value
    return nested
