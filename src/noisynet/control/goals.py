"""The goals of a target: how each is measured, and how it moves the scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ..layers.outputs import action_deviation, check_values, effective_epsilon
from .scale import as_number, checked_number


class Goal(Protocol):
    """A quantity to hold at a value: how it is measured, and how a measurement moves the scale."""

    @property
    def words(self) -> str:
        """Return a short description of the goal, for people to read."""
        ...

    def measure(self, noisy_KBA: Tensor, mean_BA: Tensor) -> float:
        """Return the distance of outputs (K, B, A) under K draws from those of the means (B, A)."""
        ...

    def step(self, scale: float, measured: float) -> float:
        """Return the next scale, given the current one and what was measured under it."""
        ...


@dataclass(frozen=True)
class EffectiveEpsilon:
    """The share of greedy actions that the noise changes, held at `wanted`.

    scale ← scale · exp(gain · error), where error = (wanted - measured) / wanted is the relative
    error; no step divides the scale by more than 2.72 (Euler's number). The error is linear in the
    measurement, so once the scale neither rises nor falls on average, the measured share is
    `wanted` on average, however it scatters. With the error's logarithm or its sign, the share
    would settle elsewhere.

    If the share grows as scale^κ near the target, each step leaves 1 - gain · κ of the error: the
    loop is stable for κ < 2 / gain, and does not oscillate for κ < 1 / gain. κ is 1 where the gaps
    between Q-values are dense near 0. For a single gap under Gaussian noise, κ = z φ(z) / Φ(-z)
    with Φ(-z) = wanted, which is 3.4 at 0.05 and 7.4 at 0.005.

    Raises ValueError unless `wanted` lies between 0 and 1 and `gain` is above 0 and at most 1.
    """

    wanted: float
    gain: float = 0.1

    def __post_init__(self) -> None:
        _check_between("effective_epsilon", self.wanted)
        if not 0 < checked_number("gain", self.gain) <= 1:
            raise ValueError(f"gain: got {self.gain!r}, expected a number above 0, at most 1")

    @property
    def words(self) -> str:
        """Return a short description of the goal, for people to read."""
        return f"effective ε {self.wanted:g}"

    def measure(self, noisy_KBA: Tensor, mean_BA: Tensor) -> float:
        """Return the share of greedy actions that K draws of noise change, over all rows."""
        check_values(noisy_KBA, mean_BA, least_draws=1)
        return float(effective_epsilon(noisy_KBA, mean_BA).mean())

    def step(self, scale: float, measured: float) -> float:
        """Return the next scale, given the current one and what was measured under it."""
        error = (self.wanted - measured) / self.wanted
        return scale * math.exp(max(self.gain * error, -1.0))


@dataclass(frozen=True)
class _UpOrDown:
    wanted: float
    factor: float = 1.01

    name = ""

    def __post_init__(self) -> None:
        checked_number(self.name, self.wanted, above=True)
        if checked_number("factor", self.factor) <= 1:
            raise ValueError(f"factor: got {self.factor!r}, expected a number above 1")

    def step(self, scale: float, measured: float) -> float:
        """Return the scale times `factor` if `measured` is at most `wanted`, else divided by it.

        Source: Plappert et al., arXiv 1706.01905, §3.
        """
        return scale * self.factor if measured <= self.wanted else scale / self.factor


@dataclass(frozen=True)
class ActionDeviation(_UpOrDown):
    """The deviation of continuous actions from the mean weights' actions, held at `wanted`.

    It is d = √(mean of (π(s)_i - π̃(s)_i)²), over observations, dimensions of the action and draws.
    The scale goes up or down by `factor` (Plappert et al., arXiv 1706.01905, §3 and appendix), so
    that the noise of an action has the standard deviation `wanted`, in the action's own unit.
    Raises ValueError unless `wanted` is above 0 and `factor` above 1.
    """

    name = "action_deviation"

    @property
    def words(self) -> str:
        """Return a short description of the goal, for people to read."""
        return f"action deviation {self.wanted:g}"

    def measure(self, noisy_KBA: Tensor, mean_BA: Tensor) -> float:
        """Return d, the root mean square deviation."""
        return action_deviation(noisy_KBA, mean_BA)


@dataclass(frozen=True)
class Divergence(_UpOrDown):
    """The KL divergence of the softmax policies of Q, D(π ‖ π̃), held at `wanted`.

    Plappert et al. (arXiv 1706.01905) hold it at the divergence of ε-greedy,
    `divergence_of_epsilon`. The scale goes up or down by `factor`. Raises ValueError unless
    `wanted` is above 0 and `factor` above 1.
    """

    name = "divergence"

    @property
    def words(self) -> str:
        """Return a short description of the goal, for people to read."""
        return f"KL divergence {self.wanted:g}"

    def measure(self, noisy_KBA: Tensor, mean_BA: Tensor) -> float:
        """Return D(π ‖ π̃), the mean over observations and draws."""
        check_values(noisy_KBA, mean_BA, least_draws=1)
        mean = mean_BA.float().log_softmax(-1)
        noisy = noisy_KBA.float().log_softmax(-1)
        # A divergence is never below 0, but rounding can make it so for nearly equal policies.
        return max(float((mean.exp() * (mean - noisy)).sum(-1).mean()), 0.0)


def divergence_of_epsilon(epsilon: float, actions: int) -> float:
    """Return D(greedy ‖ ε-greedy) = -ln(1 - ε + ε/|A|): δ of Plappert et al., arXiv 1706.01905.

    Raises ValueError unless ε lies between 0 and 1 and there are at least two actions.
    """
    _check_between("epsilon", epsilon)
    if isinstance(actions, bool) or not isinstance(actions, int) or actions < 2:
        raise ValueError(f"actions: got {actions!r}, expected a whole number of at least 2")
    return -math.log(1 - epsilon + epsilon / actions)


def _check_between(name: str, value: float) -> None:
    if not 0 < as_number(value) < 1:
        raise ValueError(f"{name}: got {value!r}, expected a number between 0 and 1, exclusive")
