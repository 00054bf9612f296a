"""Calls to environments: errors and hangs of other people's code."""

import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .raised import raised
from .vector import EnvironmentFailed

Answer = TypeVar("Answer")


class Unfit(Exception):
    """An environment returned something that does not fit; becomes an EnvironmentFailed."""


def check_finite(name: str, values: npt.NDArray[Any]) -> None:
    """Raise Unfit for an array of floats that has NaN or infinity in it."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = values[~np.isfinite(values)][0]
        raise Unfit(f"{name}: got {bad}, expected finite numbers")


class Hangs(EnvironmentFailed):
    """An environment that does not answer."""


_asked: tuple[Callable[[str], EnvironmentFailed], str, float] | None = None
"""The call in progress: a function that makes its error, the method's name, the start time."""


HANG_SECONDS = 10.0


def hangs(seconds: float | None = None) -> Hangs | None:
    """Return the error for a call unanswered for `seconds` (None: HANG_SECONDS), or None."""
    seconds = HANG_SECONDS if seconds is None else seconds
    # Read once: with `overlap`, another thread sets it.
    asked = _asked
    if asked is None or (waited := time.monotonic() - asked[2]) < seconds:
        return None
    failure, method, _ = asked
    return Hangs(str(failure(f"no answer from {method} for {waited:.0f} s")))


def unanswered() -> str:
    """Return the end of a sentence, naming the game that does not answer; empty if all do."""
    found = hangs(1.0)
    return "" if found is None else f": {found}"


def ask(
    failure: Callable[[str], EnvironmentFailed],
    method: str,
    call: Callable[..., Answer],
    *arguments: object,
) -> Answer:
    """Call an environment; raise whatever it raises as an EnvironmentFailed made by `failure`."""
    global _asked
    _asked = (failure, method, time.monotonic())
    try:
        answer = call(*arguments)
    except Hangs:
        raise
    except Unfit as unfit:
        _asked = None
        raise failure(f"{method}: {unfit}") from None
    except (Exception, SystemExit) as error:
        _asked = None
        raise failure(f"{method} raised {raised(error)}") from error
    # An interrupt skips this line, so that its message can name the game.
    _asked = None
    return answer


def close(failure: Callable[[str], EnvironmentFailed], call: Callable[[], object]) -> None:
    """Close an environment; if that fails, warn.

    An earlier call that was not answered remains the one that `hangs` reports.
    """
    global _asked
    former = _asked
    try:
        ask(failure, "close", call)
    except EnvironmentFailed as error:  # nothing is lost by it any more
        warnings.warn(str(error), RuntimeWarning, stacklevel=3)
    if former is not None:
        _asked = former
