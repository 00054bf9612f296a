"""A controller that holds the noise at a target: it measures a batch, then moves the scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from ..layers.outputs import Outputs, ToValues, check_draws, outputs_of_model
from .goals import ActionDeviation, Divergence, EffectiveEpsilon, Goal
from .scale import checked_number, scale, set_scale

Measure = Callable[[Any, torch.Generator], Outputs]
"""A function from observations and a generator to `Outputs` under K draws and the mean weights."""

BOUNDS = (1e-4, 1e4)
"""The bounds of the scale, whatever is measured.

Without them, a σ that nears 0, or values that no noise can change, would drive it to infinity.
"""


class Target:
    """A scale that follows a goal; `noisynet.control.target` builds one for a module.

    All `modules` get the scale, which starts from that of the first. `outputs` measures on whatever
    observations `update` is given. Draws are seeded by `seed` and the number of measurements, so no
    other random number changes, and a resumed loop measures what it would have measured. Raises
    ValueError for a module without noise or whose layers have different scales, if the scale of the
    first module is 0, and for bounds that are not above 0 or in the wrong order.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        goal: Goal,
        outputs: Measure,
        *,
        seed: int = 0,
        bounds: tuple[float, float] = BOUNDS,
    ) -> None:
        low, high = (checked_number("bounds", bound, above=True) for bound in bounds)
        if low >= high:
            raise ValueError(f"bounds: got {bounds!r}, expected a lower and then a higher one")
        begin, *_ = [scale(module) for module in modules]
        if begin == 0:
            raise ValueError("scale: got 0, expected one above 0: a target multiplies it")
        self.modules = tuple(modules)
        self.goal = goal
        self.measured: float | None = None
        """What `update` measured last; None before the first measurement."""
        self.measurements = 0
        self._outputs = outputs
        self._seed = seed
        self._low, self._high = low, high
        self._set(begin)

    @property
    def scale(self) -> float:
        """Return the current scale."""
        return self._scale

    @property
    def at_bound(self) -> bool:
        """Return whether the scale can go no further, so that the goal may be out of reach."""
        return self._scale in (self._low, self._high)

    def update(self, observations: Any) -> float:
        """Measure on a batch of observations, move the scale, and return what was measured."""
        self.measured = self.measure(observations)
        self.adjust(self.measured)
        return self.measured

    def measure(self, observations: Any) -> float:
        """Return what the goal measures on observations, under new draws."""
        device = next(self.modules[0].parameters()).device
        number = hash((self._seed, self.measurements)) & (2**63 - 1)
        self.measurements += 1
        generator = torch.Generator(device).manual_seed(number)
        return self.goal.measure(*self._outputs(observations, generator))

    def adjust(self, measured: float) -> float:
        """Move the scale by one step, from a measurement made here or elsewhere; return the scale.

        Raises ValueError for a measurement that is NaN, infinite or negative.
        """
        measured = checked_number("measured", measured)
        self._set(self.goal.step(self._scale, measured))
        return self._scale

    def _set(self, value: float) -> None:
        self._scale = min(max(value, self._low), self._high)
        bound = ", at its bound" if self.at_bound else ""
        set_scale(self.modules, self._scale, control=f"target, {self.goal.words}{bound}")

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed loop needs: the scale and the number of measurements."""
        return {"scale": self._scale, "measurements": self.measurements}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.measurements = int(state["measurements"])
        self._set(float(state["scale"]))


def target(
    module: nn.Module,
    *followers: nn.Module,
    effective_epsilon: float | None = None,
    action_deviation: float | None = None,
    divergence: float | None = None,
    gain: float = 0.1,
    factor: float = 1.01,
    draws: int = 16,
    values: ToValues | None = None,
    seed: int = 0,
    bounds: tuple[float, float] = BOUNDS,
) -> Target:
    """Build a controller that moves a module's scale so that its noise stays at a target.

    Build it once, `controller = noisynet.control.target(net, effective_epsilon=0.05)`; then, from
    time to time, call `controller.update(observations)` on a batch that the agent has just seen.

    Give one of three targets: `effective_epsilon`, the share of greedy actions that the noise
    changes (see `EffectiveEpsilon` for `gain`); `action_deviation`, the standard deviation of
    continuous actions, in their unit; or `divergence`, the KL divergence of softmax policies. The
    last two move the scale by `factor` (Plappert et al., arXiv 1706.01905); with σ that is not
    learned (`learned=False`) they are the adaptive parameter noise of that paper.

    Each update runs the module once with its mean weights and once under each of `draws` draws, and
    leaves its noise, buffers and torch's global generators as they were. The module must return
    (B, A) for a batch (B, …), or a tuple that begins with it; `values` converts any other output.
    `followers`, such as a target network, get the same scale. The scale starts from the module's
    current one.

    Raises ValueError for none or several targets, one out of its range, and modules without noise.
    """
    goals: list[Goal] = []
    if effective_epsilon is not None:
        goals.append(EffectiveEpsilon(effective_epsilon, gain))
    if action_deviation is not None:
        goals.append(ActionDeviation(action_deviation, factor))
    if divergence is not None:
        goals.append(Divergence(divergence, factor))
    if len(goals) != 1:
        raise ValueError(
            f"target: got {len(goals)} targets, expected one of effective_epsilon, "
            "action_deviation and divergence"
        )
    check_draws(draws, least=1)
    # Not a function defined here, since a copy of the controller must measure the copy's module.
    outputs = partial(_outputs, module, draws, values)
    return Target((module, *followers), goals[0], outputs, seed=seed, bounds=bounds)


def _outputs(
    module: nn.Module,
    draws: int,
    values: ToValues | None,
    observations: Any,
    generator: torch.Generator,
) -> Outputs:
    return outputs_of_model(module, observations, draws=draws, generator=generator, values=values)
