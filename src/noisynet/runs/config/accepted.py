"""The values that a config field accepts, derived from its type: described, and read from text."""

from __future__ import annotations

import types
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from ..errors import nearest

Kind = Literal["flag", "whole", "number", "list", "choice", "text"]

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")
_NOTHING = ("", "none", "null", "~")


@dataclass(frozen=True)
class Accepted:
    """The values that a field accepts."""

    kind: Kind
    choices: tuple[str, ...] = ()
    """All values of a choice; for a text, some examples."""
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    longest: int | None = None
    """The largest number of characters in a text."""
    optional: bool = False
    """Whether the value may be none."""

    def __str__(self) -> str:
        """Describe the accepted values, for the end of a sentence."""
        said = self._one()
        return f"{said}, or none" if self.optional else said

    def _one(self) -> str:
        if self.choices:
            return any_of(self.choices)
        if self.kind == "flag":
            return "true or false"
        if self.kind == "text":
            return f"text of at most {self.longest} characters" if self.longest else "text"
        if self.kind == "list":
            return f"whole numbers{self._bounds()}, separated by commas"
        return f"{'a whole number' if self.kind == 'whole' else 'a number'}{self._bounds()}"

    def _bounds(self) -> str:
        most = self.most
        if most is None and self.below is not None and self.kind == "whole":
            most = self.below - 1
        if self.above is not None:
            high = "" if most is None else f", at most {most:.15g}"
            if most is None and self.below is not None:
                high = f" and below {self.below:.15g}"
            return f" above {self.above:.15g}{high}"
        if self.least is not None and most is not None:
            return f" from {self.least:.15g} to {most:.15g}"
        if self.least is not None:
            return f" of at least {self.least:.15g}"
        return "" if most is None else f" of at most {most:.15g}"

    @property
    def placeholder(self) -> str:
        """The placeholder of a value in the help."""
        if self.choices:
            return "|".join(self.choices)
        names = {"flag": "true|false", "whole": "N", "number": "X", "list": "N,N,…"}
        return names.get(self.kind, "TEXT")

    def near(self, got: object) -> str | None:
        """Return the choice that was probably meant by a value; None if none is similar."""
        # Less similar names mean other things: gpu is not a misspelt cpu.
        found = nearest(got, self.choices, likeness=0.7)
        return found[0] if found else None

    def read(self, text: str) -> object:
        """Return the value that a text stands for, or the text itself if it stands for none."""
        word = text.strip().lower()
        if self.optional and word in _NOTHING:
            return None
        if self.kind == "flag":
            return True if word in _TRUE else False if word in _FALSE else text
        if self.kind == "list":
            parts = word.removeprefix("[").removesuffix("]").strip()
            return [number(part.strip()) for part in parts.split(",")] if parts else []
        return number(text) if self.kind in ("whole", "number") else text


def accepted(info: FieldInfo) -> Accepted:
    """Return the values that a field accepts."""
    found = _accepted(info.annotation, info.metadata)
    examples = tuple(map(str, info.examples or ()))
    return replace(found, choices=examples) if found.kind == "text" else found


def any_of(names: Iterable[str]) -> str:
    """Return names as a choice: `a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def is_truth(text: str) -> bool:
    """Return whether a text says true or false."""
    return text.strip().lower() in (*_TRUE, *_FALSE)


def number(text: str) -> int | float | str:
    """Return the number that a text stands for, or the text itself if it stands for none."""
    # As Python reads numbers; YAML reads 010 as 8.
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _accepted(annotation: Any, metadata: Iterable[Any]) -> Accepted:
    metadata = list(metadata)
    while get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        metadata += more
    arguments = get_args(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        (inner,) = (one for one in arguments if one is not type(None))
        return replace(_accepted(inner, metadata), optional=True)
    if get_origin(annotation) is Literal:
        if isinstance(arguments[0], bool):
            return Accepted("flag", choices=tuple(str(one).lower() for one in arguments))
        return Accepted("choice", choices=tuple(map(str, arguments)))
    if get_origin(annotation) is tuple:
        return replace(_accepted(arguments[0], metadata), kind="list")
    kinds: dict[type, Kind] = {bool: "flag", int: "whole", float: "number", str: "text"}
    bounds = _bounds(metadata)
    longest = bounds.get("max_length")
    return Accepted(
        kinds[annotation],
        least=bounds.get("ge"),
        above=bounds.get("gt"),
        most=bounds.get("le"),
        below=bounds.get("lt"),
        longest=None if longest is None else int(longest),
    )


def _bounds(metadata: Iterable[Any]) -> dict[str, float]:
    """Return the tightest of each bound: a field may add bounds to those of its type."""
    found: dict[str, float] = {}
    for one in metadata:
        inner = one.metadata if isinstance(one, FieldInfo) else ()
        own = {name: getattr(one, name, None) for name in ("ge", "gt", "le", "lt", "max_length")}
        for bounds in (own, _bounds(inner)):
            for name, value in bounds.items():
                if value is not None:
                    tightest = max if name in ("ge", "gt") else min
                    found[name] = tightest(found.get(name, value), value)
    return found
