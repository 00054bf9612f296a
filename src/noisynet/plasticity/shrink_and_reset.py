"""Shrink and perturb, and resets: whole parameters moved towards new initial values.

Shrink and perturb (arXiv 1910.08475) moves all parameters part of the way; a reset (of the head in
arXiv 2205.07802, SR-SPR and BBF) reinitialises some. σ is treated as μ is: if it were only shrunk,
the noise would die out, and exploration with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..layers import sigma_parameters
from .initial_values import new_initial_values, why_not_reinitialisable
from .moments import check_knows, forget


@torch.no_grad()
def move_to_new(
    net: nn.Module,
    names: Sequence[str],
    optimizers: Sequence[Optimizer],
    *,
    kept: float,
    seed: int,
    why: str,
) -> None:
    """Move all parameters of the named parts of a network to kept · θ + (1 - kept) · θ₀.

    θ₀ are new initial values. With `kept` above 0, |σ| moves and the sign stays, since σ and -σ are
    the same noise, and would cancel each other. With `kept` at 0, running statistics (BatchNorm)
    begin anew as well. What is frozen stays as it is, and a tensor that several modules share is
    moved once. The optimizers' state of moved parameters is reset. Raises ValueError, with a
    message that begins with `why`, for a module whose parameters cannot be reinitialised.
    """
    modules: dict[nn.Module, str] = {}
    normalising: list[Any] = []
    for name in names:
        part = net.get_submodule(name)
        for inner, module in part.named_modules(prefix=name):
            learn = [one.requires_grad for one in module.parameters(recurse=False)]
            if any(learn):
                modules.setdefault(module, inner)
            if hasattr(module, "reset_running_stats") and (any(learn) or not learn):
                normalising.append(module)
    for module, name in modules.items():
        reason = why_not_reinitialisable(module)
        if reason is not None:
            raise ValueError(f"{why}: got {name!r}, a {type(module).__name__}: {reason}")
    moved: dict[int, tuple[str, nn.Parameter, Tensor]] = {}
    for (module, inner), values in zip(
        modules.items(), new_initial_values(modules, seed), strict=True
    ):
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                label = f"{inner}.{name}".removeprefix(".")
                moved.setdefault(id(parameter), (label, parameter, values[name]))
    check_knows(optimizers, [(name, parameter) for name, parameter, _ in moved.values()])
    if not kept:
        for module in normalising:
            module.reset_running_stats()
    sigmas = {id(one) for one in sigma_parameters(net)}
    for _, parameter, value in moved.values():
        if not kept:
            parameter.copy_(value)
        elif id(parameter) in sigmas:
            sign = torch.where(parameter < 0, -1.0, 1.0).to(parameter)
            parameter.copy_(sign * parameter.abs().lerp(value.abs(), 1 - kept))
        else:
            parameter.lerp_(value, 1 - kept)
        for optimizer in optimizers:
            forget(optimizer, parameter)
