"""The schema of a checkpoint's state.json, which is checked before anything is restored.

It says which keys must exist, and of which type; what they mean is up to the `state` and `restore`
of each part. Further keys are allowed, because a part may save what only its `restore` knows.
"""

from __future__ import annotations

from typing import Annotated, Any

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from .errors import shown

Count = Annotated[int, Field(ge=0, lt=2**63)]


class Part(BaseModel):
    """The base of this schema: the named fields have strict types, and other keys are allowed."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Arrays(Part):
    size: Count
    crc32: Count


class Document(Part):
    """The content of state.json, without its own checksum."""

    step: Count
    arrays: _Arrays
    state: dict[str, Any]


class _Agent(Part):
    updates: Count
    action_generator: dict[str, Any] | None = None


class _Loop(Part):
    step: Count
    games: Count
    returns: list[float]
    losses: list[float] = []
    target_copies: Count = 0
    learned: list[dict[str, float]] = []
    environments: dict[str, Any] | None = None
    episodes: dict[str, list[float]] = {}
    first: list[bool] = []


class SavedState(Part):
    """The `state` of a checkpoint that a run can go on from."""

    elapsed: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    metrics_bytes: Count
    agent: _Agent
    loop: _Loop
    replay: dict[str, Any] | None = None
    # The config that it was made with, by section; older checkpoints have none.
    config: dict[str, dict[str, Any]] = {}


def problem_of(model: type[BaseModel], values: object) -> str | None:
    """Return, in one line, why values do not fit a model; None if they do."""
    try:
        model.model_validate(values)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "it"
        if first["type"] == "missing":
            return f"{place} is missing"
        expected = first["msg"].replace("Input should be ", "expected ")
        expected = expected.partition(" or instance of ")[0]
        return f"{place}: got {shown(first['input'])}, {expected}"
    return None
