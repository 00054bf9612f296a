"""Checks of arguments to environments, and errors that say what is expected."""

import difflib
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from .vector import Environments, UnusableEnvironment


def whole(name: str, value: object, least: int, most: int | None = None) -> int:
    """Return `value` as an int from `least` to `most`; raise UnusableEnvironment otherwise."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | np.integer)
        or value < least
        or (most is not None and value > most)
    ):
        expected = f"at least {least}" if most is None else f"from {least} to {most}"
        raise UnusableEnvironment(f"{name}: got {value!r}, expected a whole number {expected}")
    return int(value)


def check_count_and_seed(count: object, seed: object, most: int | None = None) -> tuple[int, int]:
    """Return both as ints; raise UnusableEnvironment if invalid, or if a seed is above `most`."""
    checked = whole("count", count, 1)
    return checked, whole("seed", seed, 0, None if most is None else most - checked + 1)


def checked_actions(
    environment: str, actions: npt.ArrayLike, count: int, action_count: int
) -> npt.NDArray[np.int64]:
    """Return `actions` as (N,) int64; raise UnusableEnvironment if they do not fit.

    The check is necessary: ale-py 0.12.1 hangs for ever on an action out of range.
    """
    given = np.asarray(actions)
    if given.shape != (count,) or given.dtype.kind not in "iu":
        raise UnusableEnvironment(
            f"{environment}: actions: got {given.dtype} of shape {given.shape}, "
            f"expected whole numbers of shape ({count},)"
        )
    if given.min() < 0 or given.max() >= action_count:
        raise UnusableEnvironment(
            f"{environment}: actions: got {given.tolist()}, expected 0 to {action_count - 1}"
        )
    return given.astype(np.int64)


def check_state(environments: Environments, state: dict[str, Any], count: int) -> dict[str, Any]:
    """Return the state; raise UnusableEnvironment if it belongs to other environments."""
    if (state["id"], count) != (environments.id, environments.count):
        raise UnusableEnvironment(
            f"state: got one of {count} × {state['id']}, "
            f"expected one of {environments.count} × {environments.id}"
        )
    return state


def one_line(error: BaseException) -> str:
    """Return an error's type and the first line of what it says: `KeyError: 'speed'`."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def unknown_id(environment_id: str, known: Iterable[str]) -> UnusableEnvironment:
    """Return the error for an unknown id, with the known ids nearest to it."""
    nearest = nearest_names(environment_id, known)
    hint = f"nearest: {', '.join(nearest)}" if nearest else "expected a registered Gymnasium id"
    return UnusableEnvironment(f"{environment_id}: unknown environment; {hint}")


def nearest_names(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the known ids nearest to `name`, best first; namespace and version may be missing."""

    def likeness(candidate: str) -> tuple[float, float]:
        whole_id = difflib.SequenceMatcher(None, name.lower(), candidate.lower()).ratio()
        bare = difflib.SequenceMatcher(None, _bare(name), _bare(candidate)).ratio()
        return max(whole_id, bare), whole_id

    scored = sorted(((likeness(candidate), candidate) for candidate in set(known)), reverse=True)
    return [candidate for (best, _), candidate in scored[:most] if best >= 0.6]


def _bare(name: str) -> str:
    """Return an id without namespace, version and old suffix: `PongNoFrameskip-v4` is `pong`."""
    bare = name.rsplit("/", 1)[-1].rsplit("-v", 1)[0].replace("_", "").lower()
    return bare.removesuffix("noframeskip").removesuffix("deterministic")
