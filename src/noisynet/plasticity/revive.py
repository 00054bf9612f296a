"""One call that keeps a network able to learn: ReDo, shrink and perturb, and resets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ..diagnostics.units import DRAWS, THRESHOLD, check_threshold
from ..layers.optimizers import optimizers_in
from ..layers.outputs import check_draws
from .dormant import reinitialise_units, search, why_not_treatable
from .initial_values import new_seed
from .moments import check_knows
from .shrink_and_reset import move_to_new


@dataclass(frozen=True)
class Revived:
    """The dormant units that `revive` found, and what it did about them."""

    units: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The indices of the units that were reinitialised, by layer."""
    left: Mapping[str, str] = field(default_factory=dict)
    """Layers whose dormant units were left as they are, each with the reason."""

    @property
    def count(self) -> int:
        """Return the number of units that were reinitialised."""
        return sum(map(len, self.units.values()))


def revive(
    net: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer],
    batch: Any = None,
    *,
    threshold: float = THRESHOLD,
    shrink: float | None = None,
    reset: str | Sequence[str] = (),
    draws: int = DRAWS,
    generator: torch.Generator | None = None,
) -> Revived:
    """Keep a network able to learn, by any of three cures; call it between two updates.

    - `batch` (observations (B, …), or the tuple of arguments that the network takes): units that
      `noisynet.units` finds dormant on it, by `threshold` and `draws`, are reinitialised (ReDo,
      arXiv 2302.12902). The incoming weights of such a unit get new initial values, μ and σ; the
      outgoing ones are set to 0, μ and σ, so that the network computes the same under any draw, as
      far as the unit was silent. A norm between a layer and its activation shifts the other units a
      little, by their mean and deviation.
    - `shrink`: every parameter becomes shrink · θ + (1 - shrink) · θ₀ with new initial θ₀ (shrink
      and perturb, arXiv 1910.08475).
    - `reset`: the named parts of the network, such as `"head"`, are reinitialised, with the running
      statistics in them (SR-SPR, BBF).

    Several cures are applied in the order shrink, reset, batch: `shrink=0.5, reset="head"` is what
    SR-SPR and BBF do. The optimizer, or a sequence of them together, must have all parameters that
    may change: those of the named parts for a reset alone, otherwise all that learn. The moments of
    reinitialised weights are reset, each in the optimizer that has it. Held draws stay held and
    valid, since ε depends on neither μ nor σ. A target network is not changed: copy the network
    into it after `shrink` and `reset`. `generator`, on any device, makes the call repeatable.

    Raises TypeError for anything but optimizers; ValueError if nothing is asked for, for an empty
    sequence, a parameter that no optimizer has, a threshold or `shrink` outside [0, 1), a part that
    does not exist, cannot be reinitialised or has nothing that learns, a network none of whose
    layers can be treated, and activations that are NaN or infinite.
    """
    parts = [reset] if isinstance(reset, str) else list(reset)
    _check(net, batch, threshold, shrink, parts)
    optimizers = optimizers_in(optimizer)
    if batch is not None or shrink is not None:
        # Any layer may change; a reset alone checks its parts itself, before it changes them.
        learned = [(name, one) for name, one in net.named_parameters() if one.requires_grad]
        check_knows(optimizers, learned)
    check_draws(draws, least=0)
    if shrink is not None:
        seed = new_seed(generator)
        move_to_new(net, [""], optimizers, kept=shrink, seed=seed, why="shrink")
    if parts:
        move_to_new(net, parts, optimizers, kept=0.0, seed=new_seed(generator), why="reset")
    if batch is None:
        return Revived()
    # One seed for both the draws that measure and the new initial values.
    seed = new_seed(generator)
    layers, dormant = search(net, batch, threshold=threshold, draws=draws, seed=seed)
    owners = Counter(
        id(one) for module in net.modules() for one in module.parameters(recurse=False)
    )
    reasons = {name: why_not_treatable(layer, owners) for name, layer in layers.items()}
    if all(reason is not None for reason in reasons.values()):
        said = "; ".join(f"{name!r}: {reason}" for name, reason in reasons.items())
        raise ValueError(
            f"net: got a {type(net).__name__} without a layer whose units can be drawn anew, "
            f"expected a linear layer or a convolution, an activation, and what reads it"
            + (f" ({said})" if said else "")
        )
    found = {name: units for name, units in dormant.items() if len(units)}
    treated = {name: units for name, units in found.items() if reasons[name] is None}
    names = {module: name for name, module in net.named_modules()}
    if treated:
        reinitialise_units(optimizers, layers, treated, names, seed)
    return Revived(
        units={name: tuple(units.tolist()) for name, units in treated.items()},
        left={name: reasons[name] or "" for name in found if name not in treated},
    )


def _check(
    net: nn.Module,
    batch: Any,
    threshold: float,
    shrink: float | None,
    parts: Sequence[str],
) -> None:
    if not isinstance(net, nn.Module):
        raise TypeError(f"net: got {type(net).__name__}, expected an nn.Module")
    if batch is None and shrink is None and not parts:
        raise ValueError("revive: got nothing to do, expected a batch, shrink= or reset=")
    check_threshold(threshold)
    if shrink is not None:
        is_number = isinstance(shrink, int | float) and not isinstance(shrink, bool)
        if not is_number or not 0 <= shrink < 1:
            raise ValueError(f"shrink: got {shrink!r}, expected a number in [0, 1), or None")
    there = dict(net.named_modules())
    for part in parts:
        if part not in there:
            parts_there = ", ".join(name for name, _ in net.named_children()) or "none"
            raise ValueError(f"reset: got {part!r}, expected parts of the network ({parts_there})")
        if not any(one.requires_grad for one in there[part].parameters()):
            kind = type(there[part]).__name__
            raise ValueError(
                f"reset: got {part!r}, a {kind}, expected a part with weights that learn"
            )
