"""Noise and optimizers: σ among the parameters, and a redraw after each step."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from .parametrised import parametrised_names
from .states import noisy_layers, resample


def sigma_parameters(module: nn.Module) -> list[nn.Parameter]:
    """List all σ of a module, each once, for an existing optimizer or a group without weight decay.

    Weight decay pulls σ towards 0, and so switches exploration off: put these parameters into a
    group with `weight_decay=0`.
    """
    found: dict[int, nn.Parameter] = {}
    for layer in noisy_layers(module).values():
        own = list(layer.named_parameters(recurse=False))
        for name in parametrised_names(layer):
            part = layer.get_submodule(f"parametrizations.{name}")
            own += [(name, parameter) for parameter in part.parameters()]
        found |= {id(parameter): parameter for name, parameter in own if name.endswith("_sigma")}
    return list(found.values())


def attach(
    optimizer: Optimizer | Sequence[Optimizer],
    *modules: nn.Module,
    generator: torch.Generator | None = None,
) -> RemovableHandle:
    """Resample each module now, and again after every `optimizer.step()`.

    Each module gets its own draw; pass both the online and the target network. If a network has
    several optimizers, such as Muon for its matrices and AdamW for the rest, pass them as a
    sequence, in the order in which they step: noise is redrawn after each step of the last one.
    Call `remove()` on the returned handle to stop.

    A copy of an optimizer, by `copy.deepcopy` or pickle, has no hook, and so does not redraw:
    attach again to the copy.

    Warns if no optimizer has the σ of a layer whose means are in one, as happens if it was built
    before `noisify`. Raises TypeError for anything but optimizers that take hooks, and ValueError
    for an empty sequence and for a module without noisy layers.
    """
    optimizers = optimizers_in(optimizer)
    if not hasattr(optimizers[-1], "_optimizer_step_post_hooks"):
        raise TypeError(
            f"optimizer: got {type(optimizers[-1]).__name__}, a wrapper that takes no hooks, "
            "expected the optimizer inside it"
        )
    resample(*modules, generator=generator)
    _warn_of_missing_sigmas(optimizers, modules)

    def redraw(*_: object) -> None:
        resample(*modules, generator=generator)

    return optimizers[-1].register_step_post_hook(redraw)


def optimizers_in(optimizer: Optimizer | Sequence[Optimizer]) -> tuple[Optimizer, ...]:
    """Return the optimizers of an argument that is one of them or a sequence.

    Raises TypeError for anything but optimizers, and ValueError for an empty sequence.
    """
    optimizers = tuple(optimizer) if isinstance(optimizer, Sequence) else (optimizer,)
    wrong = [type(one).__name__ for one in optimizers if not isinstance(one, Optimizer)]
    expected = (
        "expected the torch.optim.Optimizer that has the network's parameters, or a sequence of "
        "them"
    )
    if wrong:
        raise TypeError(f"optimizer: got {wrong[0]}, {expected}")
    if not optimizers:
        raise ValueError(f"optimizer: got an empty {type(optimizer).__name__}, {expected}")
    return optimizers


def _warn_of_missing_sigmas(optimizers: Sequence[Optimizer], modules: Sequence[nn.Module]) -> None:
    learned = {id(p) for one in optimizers for group in one.param_groups for p in group["params"]}
    lacking: list[str] = []
    for module in modules:
        for name, layer in noisy_layers(module).items():
            parameters = dict(layer.named_parameters())
            of_means = [id(p) in learned for key, p in parameters.items() if "_sigma" not in key]
            of_sigmas = [
                id(p) in learned
                for key, p in parameters.items()
                if "_sigma" in key and p.requires_grad
            ]
            if any(of_means) and not all(of_sigmas):
                lacking.append(repr(name))
    if lacking:
        several = len(optimizers) > 1
        have, lack = ("optimizers have", "lack") if several else ("optimizer has", "lacks")
        warnings.warn(
            f"attach: the {have} the means of {', '.join(lacking)} and {lack} their σ, which "
            "would stay as they are: build it after noisify, or "
            'optimizer.add_param_group({"params": noisynet.sigma_parameters(net)})',
            stacklevel=3,
        )
