"""From what a vector of environments gave to what the ring stores."""

from typing import TypeGuard

import numpy as np
import numpy.typing as npt

from .ring import FIRST, IGNORED, TERMINATED, TRUNCATED, RingShape


def encode_records(
    shape: RingShape,
    *,
    frame: npt.NDArray[np.generic],
    action: npt.NDArray[np.integer],
    reward: npt.NDArray[np.number],
    **flags: npt.NDArray[np.bool_],
) -> dict[str, npt.NDArray[np.generic]]:
    """Check one vector step and return it as the arrays that `Ring.append` takes.

    Raises ValueError for a wrong shape or type, an action beyond int32, or a reward beyond float32.
    """
    records = (shape.environments,)
    check_array("frame", frame, (*records, *shape.frame_shape), "buif")
    if frame.dtype != shape.frame_dtype:
        raise ValueError(f"frame: got {frame.dtype}, expected {shape.frame_dtype}")
    check_array("action", action, records, "iu")
    stored_action = action.astype(np.int32)
    if (stored_action != action).any():
        raise ValueError(f"action: got {action.tolist()}, expected int32 numbers")
    check_array("reward", reward, records, "iuf")
    with np.errstate(over="ignore"):  # an overflow is named in the next lines
        stored_reward = reward.astype(np.float32)
    if not np.isfinite(stored_reward).all():
        raise ValueError(f"reward: got {reward.tolist()}, expected finite float32 numbers")
    bits = np.zeros(records, np.uint8)
    for name, bit in (
        ("terminated", TERMINATED),
        ("truncated", TRUNCATED),
        ("first", FIRST),
        ("ignored", IGNORED),
    ):
        check_array(name, flags[name], records, "b")
        bits[flags[name]] |= bit
    return {"frames": frame, "action": stored_action, "reward": stored_reward, "flags": bits}


def check_array(
    name: str, value: npt.NDArray[np.generic], shape: tuple[int, ...], kinds: str
) -> None:
    """Raise ValueError unless `value` is an array of that shape and of one of the kinds of type."""
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{name}: got {type(value).__name__}, expected an array of shape {shape}")
    if value.shape != shape:
        raise ValueError(f"{name}: got shape {value.shape}, expected {shape}")
    if value.dtype.kind not in kinds:
        expected = {"b": "bool", "iu": "integers", "iuf": "real numbers", "buif": "numbers"}[kinds]
        raise ValueError(f"{name}: got {value.dtype}, expected {expected}")


def is_number(value: object) -> TypeGuard[float]:
    """Return whether `value` is one real number, and no boolean."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def check_fraction(name: str, value: object) -> None:
    """Raise ValueError unless `value` is a number from 0 to 1."""
    if not is_number(value) or not 0.0 <= value <= 1.0:
        raise ValueError(f"{name}: got {value!r}, expected a number from 0 to 1")
