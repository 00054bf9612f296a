"""One multiplier on σ ⊙ ε for a whole module: y = (μ_w + s σ_w ⊙ ε_w) x + μ_b + s σ_b ⊙ ε_b."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import nn

from ..layers import noisy_layers


def scale(module: nn.Module, value: float | None = None) -> float:
    """Multiply the noise of a module by a value from now on; return the scale in force.

    `scale(net, 0.3)` sets it and `scale(net)` reads it; at 1, the noise is as it was learned. The
    scale is a state of the layers, like a held draw. It acts in every state of the noise (fresh,
    held, per row, under `using`), at once even on a draw that is held already, and σ's gradient is
    that of scale · ε. It is in no `state_dict`, but copies and pickles keep it. Draws do not
    contain it: the same draw acts under the scale of the network that uses it.

    Raises ValueError for a module without noisy layers, for a value that is not a finite number of
    at least 0, and, when reading, for layers with different scales.
    """
    layers = noisy_layers(module)
    if not layers:
        raise ValueError(
            f"scale: got {type(module).__name__}, which has no noisy layer; noisynet.noisify makes "
            "some"
        )
    if value is not None:
        set_scale((module,), value, control=None)
    found = {layer.noise_state.scale for layer in layers.values()}
    if len(found) > 1:
        shown = ", ".join(f"{one:g}" for one in sorted(found))
        raise ValueError(f"scale: the layers have different ones, {shown}: set one for the module")
    return found.pop()


def set_scale(modules: Iterable[nn.Module], value: float, *, control: str | None) -> None:
    """Set the scale of several modules; `control` says in words what sets it.

    Raises ValueError for a value that is not a finite number of at least 0.
    """
    value = checked_number("scale", value)
    for module in modules:
        for layer in noisy_layers(module).values():
            layer.noise_state.rescale(value, control, layer.noise_reference)


def as_number(value: float) -> float:
    """Return a number as a float, and NaN for anything else."""
    is_number = not isinstance(value, bool | str) and hasattr(value, "__float__")
    return float(value) if is_number else math.nan


def checked_number(name: str, value: float, *, above: bool = False) -> float:
    """Return a number; raise ValueError unless it is finite and at least 0, or `above` 0."""
    number = as_number(value)
    if not math.isfinite(number) or number < 0 or (above and number == 0):
        least = "above 0" if above else "of at least 0"
        raise ValueError(f"{name}: got {value!r}, expected a finite number {least}")
    return number
