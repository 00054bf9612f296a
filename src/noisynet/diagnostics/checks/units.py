"""The check of the units: how many units of each hidden layer are dormant."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from ..findings import Check, Finding, counted, listed
from ..units import THRESHOLD, units

_MANY = 0.9
"""Share of dormant units in a layer above which the check warns. A choice: about half of the
features are 0 in CNNs that are new to Pong, and up to 89 % in CNNs that win
(benchmarks/results/pong/units.json). A layer whose units are all dormant is a failure."""
_CURE = (
    "noisynet.revive(model, optimizer, batch) now and then, and a smaller step size or a larger ε "
    "of Adam, so that they do not die again: of a run `noisynet resume RUN --redo-every 1000 "
    "--adam-epsilon 1.5e-4`"
)


def dormant_units(model: nn.Module, batch: Any) -> Finding:
    """Measure which share of each layer's units is dormant on a batch (arXiv 2302.12902)."""
    check = Check("units")
    device = next(model.parameters()).device
    try:
        found = units(model, batch, generator=torch.Generator(device).manual_seed(0))
    except ValueError as error:
        # BatchNorm in train mode, say, refuses a single observation.
        return check.skipped(str(error))
    if not found:
        return check.skipped("no layer with an activation behind it was seen")
    broken = [name for name, one in found.items() if not math.isfinite(one.norm)]
    if broken:
        return check.failed(
            f"activations of {listed(broken)} are NaN or infinite",
            "go back to a checkpoint before it; clip gradients, lower the step size",
        )
    dormant = {name: one.dormant for name, one in found.items()}
    dead = [name for name, share in dormant.items() if share == 1]
    if dead:
        return check.failed(
            f"all units of {listed(dead)} are dormant: nothing behind them can tell observations "
            "apart, and nothing before them learns",
            _CURE,
        )
    worst = max(dormant, key=dormant.__getitem__)
    message = (
        f"{dormant[worst]:.0%} of {worst!r} are dormant, their mean activity at most {THRESHOLD:g} "
        f"of their layer's (the largest share in {counted(len(found), 'layer')})"
    )
    if dormant[worst] > _MANY:
        return check.warned(message, _CURE)
    return check.passed(message)
