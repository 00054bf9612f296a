"""A check that the goal of a `NoiseControl` fits the actions of a Gymnasium space."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces

from .control import HostControl


def check_space(control: HostControl, actions: spaces.Space[Any]) -> None:
    """Raise TypeError for a goal that does not fit the actions."""
    discrete = isinstance(actions, spaces.Discrete)
    known = discrete or isinstance(actions, spaces.Box)
    control.check_actions(type(actions).__name__, discrete=discrete if known else None)
