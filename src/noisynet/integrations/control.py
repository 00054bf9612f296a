"""The scale of the noise in a host's agent: the common part of each host's `NoiseControl`."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from torch import nn

from ..control import ActionDeviation, EffectiveEpsilon, Goal, Schedule, Target, scale
from ..control.scale import set_scale
from ..control.target import Measure
from ..layers import noisy_layers
from ..layers.outputs import check_draws
from .host import join, size_of

_FITTING: dict[bool | None, tuple[type[Goal], str]] = {
    True: (EffectiveEpsilon, "effective_epsilon"),
    False: (ActionDeviation, "action_deviation"),
}
"""The goal for discrete (True) or continuous (False) actions, and the option that sets it."""


class ControlOptions(TypedDict, total=False):
    """Keyword arguments of `HostControl`, for classes that pass them on."""

    effective_epsilon: float | None
    action_deviation: float | None
    every: int
    observations: int
    draws: int
    gain: float
    factor: float
    seed: int


class RecentObservations:
    """A buffer of an agent's last observations, at least `rows` of them once it has seen as many.

    A batch is whatever `join` joins, or `joined` in its place, as in `run_under`.
    """

    def __init__(
        self, rows: int, joined: Callable[[list[Any], list[int]], Any] | None = None
    ) -> None:
        self._rows = rows
        self._joined = joined or join
        self._batches: deque[Any] = deque()

    def add(self, observations: Any) -> None:
        """Store a copy of a batch of observations, since hosts reuse the memory."""
        self._batches.append(copy.deepcopy(observations))
        while len(self) - size_of(self._batches[0]) >= self._rows:
            self._batches.popleft()

    def __len__(self) -> int:
        return sum(map(size_of, self._batches))

    def last(self) -> Any:
        """Return the last `rows` observations as one batch, or fewer if fewer were seen."""
        return self._joined(list(self._batches), list(range(len(self)))[-self._rows :])


class HostControl:
    """The common part of each host's `NoiseControl`: it moves the scale when the host calls.

    One of three options sets the scale: `schedule`, a function of the host's own steps
    (`noisynet.control.Linear`, …); `effective_epsilon`, the share of greedy actions that the noise
    changes; or `action_deviation`, the standard deviation of continuous actions. The last two are
    targets. They are measured every `every` steps, on the last `observations` and under `draws`
    draws from `seed`; `gain` and `factor` are those of `noisynet.control.target`.

    Raises ValueError for none or several of the three, for numbers that are too small, and for
    values that `noisynet.control` refuses; TypeError for a schedule that is not a function.
    """

    def __init__(
        self,
        schedule: Schedule | None = None,
        *,
        effective_epsilon: float | None = None,
        action_deviation: float | None = None,
        every: int = 100,
        observations: int = 256,
        draws: int = 8,
        gain: float = 0.1,
        factor: float = 1.01,
        seed: int = 0,
    ) -> None:
        if schedule is not None and not callable(schedule):
            raise TypeError(
                f"NoiseControl: schedule: got {schedule!r}, expected a function of the step; a "
                "target goes by its name, effective_epsilon= or action_deviation="
            )
        goals: list[Goal] = []
        if effective_epsilon is not None:
            goals.append(EffectiveEpsilon(effective_epsilon, gain))
        if action_deviation is not None:
            goals.append(ActionDeviation(action_deviation, factor))
        if len(goals) + (schedule is not None) != 1:
            raise ValueError(
                "NoiseControl: expected one of schedule, effective_epsilon and action_deviation"
            )
        for name, value in (("every", every), ("observations", observations)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"NoiseControl: {name}: got {value!r}, expected a whole number of at least 1"
                )
        check_draws(draws, least=1)
        self.schedule = schedule
        self.goal = goals[0] if goals else None
        self.every, self.observations, self.draws, self.seed = every, observations, draws, seed
        self._modules: tuple[nn.Module, ...] = ()
        self._target: Target | None = None
        self._moved_at = 0

    def check_actions(self, name: str, *, discrete: bool | None) -> None:
        """Raise TypeError for a goal that does not fit the actions; the message has their `name`.

        An effective ε is for discrete actions, and a deviation for continuous ones. For others
        (None), such as several discrete actions at a time, there is neither.
        """
        if self.goal is None:
            return
        kind, option = _FITTING.get(discrete, (None, "a schedule"))
        if kind is None or not isinstance(self.goal, kind):
            raise TypeError(
                f"NoiseControl: got {self.goal.words} for {name} actions, expected {option}"
            )

    def begin(self, modules: Sequence[nn.Module], outputs: Measure, *, step: int = 0) -> None:
        """Take over the scale of modules at a step; `outputs` measures the first of them.

        Raises ValueError for modules without noise, and for a target if the scale is 0.
        """
        for module in modules:
            scale(module)
        self._modules = tuple(modules)
        self._moved_at = step
        if self.goal is not None:
            self._target = Target(modules, self.goal, outputs, seed=self.seed)
        else:
            self.move(step, lambda: None)

    @property
    def scale(self) -> float:
        """The current scale."""
        return scale(self._modules[0])

    @property
    def words(self) -> str | None:
        """A description of what sets the scale, for people to read."""
        return next(iter(noisy_layers(self._modules[0]).values())).noise_state.control

    @property
    def target(self) -> Target:
        """The `Target` that holds the goal; there is none for a schedule."""
        assert self._target is not None, "built by `begin` where there is a goal"
        return self._target

    def move(self, step: int, measure: Callable[[], float | None]) -> dict[str, float]:
        """Set the scale for a step of the host; return what to log, {} if nothing was due.

        `measure` is called if a target is due, and returns None if nothing has been seen yet.
        """
        if self.schedule is not None:
            return {"noise/scale": self._set(self.schedule(step))}
        # In another run, the host counts its steps from 0 again.
        self._moved_at = min(self._moved_at, step)
        if step - self._moved_at < self.every:
            return {}
        measured = measure()
        if measured is None:
            return {}
        self._moved_at = step
        return {"noise/scale": self.target.adjust(measured), "noise/measured": measured}

    def move_by(self, step: int, seen: RecentObservations) -> dict[str, float]:
        """Set the scale for a step of the host; a target is measured on the observations seen."""
        return self.move(step, lambda: self.target.measure(seen.last()) if len(seen) else None)

    def state_dict(self) -> dict[str, Any]:
        """Return the state to resume from: the host's own checkpoints do not store the scale."""
        measurements = 0 if self._target is None else self._target.measurements
        return {"scale": self.scale, "measurements": measurements, "moved_at": self._moved_at}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned; raises TypeError for anything else."""
        check_state(state)
        self._moved_at = int(state["moved_at"])
        if self._target is not None:
            self._target.load_state_dict(state)
        else:
            self._set(float(state["scale"]))

    def _set(self, value: float) -> float:
        words = getattr(self.schedule, "words", "a schedule")
        set_scale(self._modules, value, control=words)
        return value


def check_state(state: Any) -> None:
    """Raise TypeError for anything but a state that `HostControl.state_dict` returned."""
    expected = {"scale": int | float, "measurements": int, "moved_at": int}
    if not isinstance(state, Mapping) or not all(
        isinstance(state.get(name), kind) for name, kind in expected.items()
    ):
        raise TypeError(
            f"NoiseControl: state: got {state!r}, expected what state_dict() returned: "
            f"{', '.join(expected)}"
        )
