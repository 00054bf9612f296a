"""What an environment was asked and has not answered: errors and hangs of other people's code."""

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
    """What an environment returned does not fit; becomes an EnvironmentFailed."""


def check_finite(name: str, values: npt.NDArray[Any]) -> None:
    """Raise Unfit for an array of floats that has NaN or infinity in it."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = values[~np.isfinite(values)][0]
        raise Unfit(f"{name}: got {bad}, expected finite numbers")


class Hangs(EnvironmentFailed):
    """An environment that does not answer."""


_asked: tuple[Callable[[str], EnvironmentFailed], str, float] | None = None
"""What was asked last and is not answered: who makes a failure of it, a method, when."""


HANG_SECONDS = 10.0


def hangs(seconds: float | None = None) -> Hangs | None:
    """Return the failure of a game that has not answered for HANG_SECONDS; None without one."""
    seconds = HANG_SECONDS if seconds is None else seconds
    # Read once: with `overlap` a thread asks.
    asked = _asked
    if asked is None or (waited := time.monotonic() - asked[2]) < seconds:
        return None
    failure, method, _ = asked
    return Hangs(str(failure(f"no answer from {method} for {waited:.0f} s")))


def unanswered() -> str:
    """Return, for the end of a sentence, which game does not answer; empty where all do."""
    found = hangs(1.0)
    return "" if found is None else f": {found}"


def ask(
    failure: Callable[[str], EnvironmentFailed],
    method: str,
    call: Callable[..., Answer],
    *arguments: object,
) -> Answer:
    """Ask an environment; whatever it raises is a failure of it, which `failure` makes."""
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
    # An interrupt leaves it, so that it can be said where it came.
    _asked = None
    return answer


def close(failure: Callable[[str], EnvironmentFailed], call: Callable[[], object]) -> None:
    """Close an environment; one that fails even then costs no more than a warning.

    What it had not answered before stays what is said not to answer.
    """
    global _asked
    former = _asked
    try:
        ask(failure, "close", call)
    except EnvironmentFailed as error:  # nothing is lost by it any more
        warnings.warn(str(error), RuntimeWarning, stacklevel=3)
    if former is not None:
        _asked = former
