"""Checks of the optimizers: whether σ is among their parameters, and free of weight decay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from ..findings import Check, Finding, counted, listed
from ..recognise import RecognisedLayer


def in_the_optimizer(
    layers: Mapping[str, RecognisedLayer], optimizers: Sequence[Optimizer]
) -> Finding:
    """Check whether one of the optimizers has σ among its parameters."""
    check = Check("optimizer")
    if not optimizers:
        return check.skipped("no optimizer was given")
    several = len(optimizers) > 1
    absent = [
        one
        for one, groups in _groups_of_sigma(layers, optimizers).items()
        if None in groups and layers[one].learns_sigma
    ]
    if absent:
        return check.failed(
            f"σ of {listed(absent)} is not in "
            f"{'any of the optimizers' if several else 'the optimizer'}: it will never move",
            "build it after noisify, or optimizer.add_param_group({'params': "
            "noisynet.sigma_parameters(model)})",
        )
    learned = [one for one, found in layers.items() if found.learns_sigma]
    if not learned:
        return check.skipped("σ is not learned (learned=False)")
    return check.passed(
        f"σ of {counted(len(learned), 'layer')} is in {'them' if several else 'it'}"
    )


def weight_decay(layers: Mapping[str, RecognisedLayer], optimizers: Sequence[Optimizer]) -> Finding:
    """Check whether weight decay pulls σ towards 0."""
    check = Check("weight decay")
    if not optimizers:
        return check.skipped("no optimizer was given")
    decays = {
        one: max(float(group.get("weight_decay", 0)) for group in groups if group is not None)
        for one, groups in _groups_of_sigma(layers, optimizers).items()
        if any(group is not None for group in groups) and layers[one].learns_sigma
    }
    decayed = {one: decay for one, decay in decays.items() if decay}
    if decayed:
        return check.warned(
            f"{max(decayed.values()):g} on σ of {listed(decayed)}: it pulls σ towards 0, and so "
            "switches exploration off by itself",
            "put σ (noisynet.sigma_parameters) into a group with weight_decay=0",
        )
    return check.passed("none on σ")


def _groups_of_sigma(
    layers: Mapping[str, RecognisedLayer], optimizers: Sequence[Optimizer]
) -> dict[str, list[dict[str, Any] | None]]:
    """Return the optimizers' group of each σ of each layer; None for a σ that is in no group."""
    groups = {
        id(one): group
        for optimizer in optimizers
        for group in optimizer.param_groups
        for one in group["params"]
    }
    return {
        one: [groups.get(id(sigma)) for sigma in found.tensors(found.sigmas)]
        for one, found in layers.items()
    }
