"""Checks of arguments: each raises a ValueError that names the value and what is expected."""

from typing import TypeGuard

import numpy as np
import numpy.typing as npt


def whole(name: str, value: object, least: int, most: int | None = None) -> int:
    """Return `value` as an int from `least` to `most`; raise ValueError otherwise."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | np.integer)
        or value < least
        or (most is not None and value > most)
    ):
        expected = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}: got {value!r}, expected a whole number {expected}")
    return int(value)


def check_array(
    name: str, value: npt.NDArray[np.generic], shape: tuple[int, ...], kinds: str
) -> None:
    """Raise ValueError unless `value` is an array of that shape, with a dtype of one of `kinds`."""
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{name}: got {type(value).__name__}, expected an array of shape {shape}")
    if value.shape != shape:
        raise ValueError(f"{name}: got shape {value.shape}, expected {shape}")
    if value.dtype.kind not in kinds:
        expected = {"b": "bool", "iu": "integers", "iuf": "real numbers", "buif": "numbers"}[kinds]
        raise ValueError(f"{name}: got {value.dtype}, expected {expected}")


def is_number(value: object) -> TypeGuard[float]:
    """Return whether `value` is one real number and not a boolean."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def check_fraction(name: str, value: object) -> None:
    """Raise ValueError unless `value` is a number from 0 to 1."""
    if not is_number(value) or not 0.0 <= value <= 1.0:
        raise ValueError(f"{name}: got {value!r}, expected a number from 0 to 1")
