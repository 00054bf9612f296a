"""The base of every section of a config, and the types of fields."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from ..seeds import SEEDS


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "expected a number")
    return value


Integer = Annotated[int, BeforeValidator(_no_bool)]
Real = Annotated[float, BeforeValidator(_no_bool)]
Fraction = Annotated[Real, Field(ge=0, le=1, allow_inf_nan=False)]
PositiveFloat = Annotated[Real, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[Real, Field(ge=0, allow_inf_nan=False)]
# At most what a C int holds: larger values raise obscure errors in ale-py and torch.
PositiveInt = Annotated[Integer, Field(ge=1, le=2**31 - 1)]
Count = Annotated[Integer, Field(ge=0, le=2**31 - 1)]
Seed = Annotated[Integer, Field(ge=0, lt=SEEDS)]
FewThousand = Annotated[Integer, Field(ge=0, le=4096)]


class Section(BaseModel):
    """A section of the configuration, frozen, which refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
