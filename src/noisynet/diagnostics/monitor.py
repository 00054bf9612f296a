"""Figures of noise and units for any training loop, with one call per step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.outputs import ToValues, action_deviation, outputs_of_model
from .behaviour import measure
from .forward_calls import unwatched
from .sigma import mean_sigma, snr
from .units import units


class NoiseMonitor:
    """Monitor that measures a model's noise and units at intervals, in any training loop.

    Call `step(batch)` at every step. Every `every` calls it returns figures, for TensorBoard or a
    file, and None otherwise. Their tags are those of noisynet's own metrics: "snr/<layer>",
    "sigma/<layer>", "noise/effective_epsilon", "noise/action_entropy" (nats), "noise/q_spread",
    "noise/q_gap", and "noise/effective_epsilon/env_<i>" for each row of the batch;
    "dormant/<layer>" and "norm/<layer>" are measured by `noisynet.units`. With `continuous`, for a
    model that returns continuous actions (B, A), those under "noise/" are replaced by
    "noise/action_deviation", the root mean square deviation of actions from the mean weights', in
    the actions' own unit. The monitor draws from its own generator and restores buffers and torch's
    global generators, so it does not affect training. `values` makes Q or actions (B, A) from any
    other output of the model. Raises ValueError for `every` below 1 or `draws` below 2.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        every: int = 100,
        draws: int = 16,
        seed: int = 0,
        values: ToValues | None = None,
        continuous: bool = False,
    ) -> None:
        for name, value, least in (("every", every, 1), ("draws", draws, 2)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(
                    f"{name}: got {value!r}, expected a whole number of at least {least}"
                )
        self.model = model
        self.every = every
        self.draws = draws
        self.seed = seed
        self.values = values
        self.continuous = continuous
        self.steps = 0

    def step(self, batch: Tensor | tuple[Any, ...] | Callable[[], Any]) -> dict[str, float] | None:
        """Count a step; return the figures if they are due, None otherwise.

        `batch` is what `noisynet.behaviour` takes, or a function that returns it, which is called
        only if figures are due.
        """
        self.steps += 1
        if self.steps % self.every:
            return None
        shown = batch() if callable(batch) else batch
        device = next(self.model.parameters()).device
        # Seeded by the step, so that a measurement does not depend on those before it.
        generator = torch.Generator(device).manual_seed(hash((self.seed, self.steps)) & (2**63 - 1))
        with unwatched():
            outputs = outputs_of_model(
                self.model, shown, draws=self.draws, generator=generator, values=self.values
            )
        if self.continuous:
            noise = {"noise/action_deviation": action_deviation(*outputs)}
        else:
            noise = measure(*outputs).figures()
        of_units = units(self.model, shown, generator=generator)
        return {
            **{f"snr/{name}": value for name, value in snr(self.model).items()},
            **{f"sigma/{name}": value for name, value in mean_sigma(self.model).items()},
            **noise,
            **{f"dormant/{name}": one.dormant for name, one in of_units.items()},
            **{f"norm/{name}": one.norm for name, one in of_units.items()},
        }
