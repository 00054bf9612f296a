"""How much an agent's noise is multiplied: by a schedule, or so that a target is held."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..control import EffectiveEpsilon, Schedule, Target, scale
from ..control.scale import set_scale
from ..layers.outputs import Outputs

Seen = tuple[np.ndarray, ...]
"""What an action was chosen by, a row for each environment: observations first."""

Measure = Callable[[Seen, torch.Generator], Outputs]
"""From what was seen to values under draws, (K, rows, actions), and by the mean weights."""

DRAWS = 16
"""Draws that a measurement takes, where they are cheap."""


@dataclass(frozen=True, kw_only=True)
class HeldTarget:
    """An effective ε that is held: the share of greedy actions that the noise changes.

    It is measured over the last `observations` that were acted on, and the scale moved by a step,
    each `every` agent steps: more often the scale follows what is learned sooner, and costs more.
    `noisynet.control.EffectiveEpsilon` has the law and `gain`.
    """

    effective_epsilon: float
    scale: float = 1.0
    """Where the scale begins."""
    every: int = 64
    observations: int = 64
    gain: float = 0.2


Control = Schedule | HeldTarget
"""What sets the scale: a function of the agent step, or a target."""


class NoiseControl:
    """The control of an agent's networks, which all have the same scale.

    `measure` returns the values of observations under draws and by the mean weights. Raises
    ValueError for networks without noise, and where a schedule reaches what is no scale.
    """

    def __init__(
        self, control: Control, networks: Sequence[nn.Module], measure: Measure, *, seed: int
    ) -> None:
        for network in networks:
            scale(network)  # raises where there is no noise to control
        self._networks = networks
        self._schedule: Schedule | None = None
        self._target: Target | None = None
        self._every, self._due = 0, 0
        self._now: float | None = None
        self._rows = 0
        self._seen: deque[Seen] = deque()
        if isinstance(control, HeldTarget):
            set_scale(networks, control.scale, control=None)
            goal = EffectiveEpsilon(control.effective_epsilon, control.gain)
            self._target = Target(networks, goal, measure, seed=seed)
            self._every, self._rows = control.every, control.observations
        else:
            self._schedule = control
            self._set(control(0))

    def see(self, *seen: np.ndarray) -> None:
        """Keep what the next action is chosen by, (N, …) each, where a target is measured on it."""
        if self._target is None:
            return
        # Environments may write the next observation into the same memory.
        self._seen.append(tuple(one.copy() for one in seen))
        while len(self._seen) > max(self._rows // len(seen[0]), 1):
            self._seen.popleft()

    def move(self, step: int) -> None:
        """Set the scale for an agent step; where a target is due, measure it first."""
        if self._schedule is not None:
            self._set(self._schedule(step))
        elif self._target is not None and self._seen and step >= self._due:
            self._due = step + self._every
            parts = zip(*self._seen, strict=True)
            self._target.update(tuple(np.concatenate(part) for part in parts))

    def _set(self, value: float) -> None:
        if value == self._now:
            return
        self._now = value
        set_scale(self._networks, value, control=getattr(self._schedule, "words", "a schedule"))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what was seen, (vector steps, N, …) each, for a checkpoint."""
        parts = zip(*self._seen, strict=True)
        return {f"control.seen.{number}": np.stack(part) for number, part in enumerate(parts)}

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs beside the scale and `arrays`, as plain JSON values."""
        if self._target is None:
            return {}
        return {"due": self._due, **self._target.state_dict()}

    def restore(self, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> None:
        """Take over what both returned; an empty state is of a run without this control."""
        if self._schedule is not None:
            # The scale has been restored with the networks; whose it is, has not.
            self._now = None
            self._set(scale(self._networks[0]))
        if self._target is not None and state:
            self._due = int(state["due"])
            self._target.load_state_dict(state)
            names = sorted(name for name in arrays if name.startswith("control.seen."))
            self._seen = deque(zip(*(arrays[name] for name in names), strict=True))
