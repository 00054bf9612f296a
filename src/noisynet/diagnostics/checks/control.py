"""The check of the scale that multiplies the noise, and of what sets it."""

from __future__ import annotations

from collections.abc import Mapping

from ...layers import NoisyLayer
from ..findings import Check, Finding, listed
from ..recognise import RecognisedLayer


def control(layers: Mapping[str, RecognisedLayer]) -> Finding:
    """Check the scale of the noise, and report what sets it."""
    check = Check("control")
    ours = {
        one: found.module.noise_state
        for one, found in layers.items()
        if isinstance(found.module, NoisyLayer)
    }
    if not ours:
        return check.skipped("a scale is a state of noisynet's layers")
    scales = [state.scale for state in ours.values()]
    low, high = min(scales), max(scales)
    named = sorted({state.control for state in ours.values() if state.control is not None})
    if low != high:
        return check.warned(
            f"scales from {low:.3g} to {high:.3g}: the layers have different ones",
            "noisynet.control.scale(model, …) sets one for all",
        )
    if high == 0:
        return check.failed("the scale is 0: no noise acts", "noisynet.control.scale(model, 1)")
    if named:
        return check.passed(f"{', '.join(named)}: the scale is {high:.3g} now")
    if high != 1:
        return check.passed(f"a constant scale of {high:.3g}")
    fixed = [one for one in ours if not layers[one].learns_sigma]
    if fixed:
        return check.warned(
            f"σ of {listed(fixed)} is not learned, and no control adapts it",
            "noisynet.control.target(model, …), or learned=True",
        )
    return check.passed("none: the scale is 1, σ acts as it was learned")
