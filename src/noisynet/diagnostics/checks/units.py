"""The doctor's look at the units: how many of a layer's never answer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..findings import Check, Finding, listed
from ..units import THRESHOLD, units

_MANY = 0.9
"""Share of a layer's units above which dormant ones are worth a warning. A choice: of the features
of CNNs that are new to Pong about half are 0, of those that win up to 85 %
(benchmarks/results/pong/units.json). Where all are dormant there is no doubt."""
_CURE = (
    "noisynet.revive(model, optimizer, batch) now and then, and a smaller step size or a larger ε "
    "of Adam, so that they do not die again: of a run `noisynet resume RUN --redo-every 1000 "
    "--adam-epsilon 1.5e-4`"
)


def dormant_units(model: nn.Module, batch: Any) -> Finding:
    """Measure which share of each layer's units is dormant on a batch (arXiv 2302.12902)."""
    check = Check("units")
    device = next(model.parameters()).device
    found = units(model, batch, generator=torch.Generator(device).manual_seed(0))
    if not found:
        return check.skipped("no layer with an activation behind it was seen")
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
        f"of their layer's ({len(found)} layers, the others at most as many)"
    )
    if dormant[worst] > _MANY:
        return check.warned(message, _CURE)
    return check.passed(message)
