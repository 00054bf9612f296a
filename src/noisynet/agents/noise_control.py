"""Control of the scale of an agent's noise, by a schedule or by a target effective ε."""

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

Observations = tuple[np.ndarray, ...]
"""The inputs that actions were chosen from, a row for each environment; observations first."""

Measure = Callable[[Observations, torch.Generator], Outputs]
"""From seen inputs to values under draws, (K, rows, actions), and by the mean weights."""

DRAWS = 16
"""Draws per measurement; fewer are used where drawing is costly."""


@dataclass(frozen=True, kw_only=True)
class HeldTarget:
    """A target for the effective ε, the share of greedy actions that the noise changes.

    Every `every` agent steps, it is measured on the last `observations` observations acted on, and
    the scale takes one step. A smaller interval follows learning more closely, but costs more.
    `noisynet.control.EffectiveEpsilon` explains the step and `gain`.
    """

    effective_epsilon: float
    scale: float = 1.0
    """The initial scale."""
    every: int = 64
    observations: int = 64
    gain: float = 0.2


Control = Schedule | HeldTarget
"""What sets the scale: a function of the agent step, or a target."""


class NoiseControl:
    """The control of the noise's scale, which all of an agent's networks share.

    `measure` returns the values of observations under draws and by the mean weights. Raises
    ValueError for networks without noise, and when a schedule returns an invalid scale.
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
        self._seen: deque[Observations] = deque()
        if isinstance(control, HeldTarget):
            set_scale(networks, control.scale, control=None)
            goal = EffectiveEpsilon(control.effective_epsilon, control.gain)
            self._target = Target(networks, goal, measure, seed=seed)
            self._every, self._rows = control.every, control.observations
        else:
            self._schedule = control
            self._set(control(0))

    def see(self, *seen: np.ndarray) -> None:
        """Keep the inputs (N, …) of the next actions, if there is a target to measure on them."""
        if self._target is None:
            return
        # Environments may write the next observation into the same memory.
        self._seen.append(tuple(one.copy() for one in seen))
        while len(self._seen) > max(self._rows // len(seen[0]), 1):
            self._seen.popleft()

    def move(self, step: int) -> None:
        """Set the scale for an agent step; a target that is due is measured first."""
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
        """Return the inputs kept by `see`, each (vector steps, N, …), for a checkpoint."""
        parts = zip(*self._seen, strict=True)
        return {f"control.seen.{number}": np.stack(part) for number, part in enumerate(parts)}

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs beside the scale and `arrays`, as plain JSON values."""
        if self._target is None:
            return {}
        return {"due": self._due, **self._target.state_dict()}

    def restore(self, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> None:
        """Restore what `arrays` and `state` returned; an empty state leaves a target as it is."""
        if self._schedule is not None:
            # The scale was restored with the networks, but not the note that a schedule sets it.
            self._now = None
            self._set(scale(self._networks[0]))
        if self._target is not None and state:
            self._due = int(state["due"])
            self._target.load_state_dict(state)
            names = sorted(name for name in arrays if name.startswith("control.seen."))
            self._seen = deque(zip(*(arrays[name] for name in names), strict=True))
