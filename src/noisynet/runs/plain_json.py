"""Plain values as JSON, infinities and NaN included; refuses what would be read back changed."""

from __future__ import annotations

import json
import math
from typing import Any

# JSON has no infinity: it is written as an object with this key.
_FLOAT_TAG = "__float__"
# Python refuses to read decimal integers above a limit, which an environment variable can lower to
# 640 digits.
_LARGEST_INTEGER_BITS = 2000


def to_json(value: object) -> str:
    """Return compact JSON; raise ValueError for an infinity or NaN that was not encoded."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def encode(value: object, place: str) -> object:
    """Return a value of plain types as JSON can hold it.

    Raises TypeError or ValueError that names the place of what JSON cannot hold.
    """
    if isinstance(value, int) and value.bit_length() > _LARGEST_INTEGER_BITS:
        raise ValueError(f"{place}: takes integers of at most {_LARGEST_INTEGER_BITS} bits")
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {_FLOAT_TAG: repr(float(value))}
    if isinstance(value, list):
        return [encode(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {_check_key(key, place): encode(v, f"{place}[{key!r}]") for key, v in value.items()}
    raise TypeError(
        f"{place}: takes dict, list, int, float, str, bool or None, got {type(value).__name__}"
    )


def _check_key(key: object, place: str) -> str:
    # json would silently turn a key such as 3 into "3".
    if not isinstance(key, str):
        raise TypeError(f"{place}: a key is text, got {key!r}")
    if key == _FLOAT_TAG:
        raise ValueError(f"{place}: the key {key!r} is reserved")
    return key


def decode(value: Any) -> Any:
    """Return what `encode` was given."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if isinstance(value, dict):
        if _FLOAT_TAG in value:
            return float(value[_FLOAT_TAG])
        return {key: decode(item) for key, item in value.items()}
    return value
