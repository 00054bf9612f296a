"""New initial values of a network's parameters, without touching anybody's random numbers."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..layers.layer import is_uninitialised
from ..layers.restoring import cuda_devices


def new_seed(generator: torch.Generator | None) -> int:
    """Draw a seed; a generator on a GPU is as good as one on the CPU."""
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**62, (), generator=generator, device=device))


def drawn_anew(modules: Iterable[nn.Module], seed: int) -> list[dict[str, Tensor]]:
    """Return new values of each module's own parameters, as its `reset_parameters` draws them.

    The modules stay as they are, and so do torch's global generators. `why_not_drawable` says
    which modules cannot be drawn.
    """
    modules = list(modules)
    values: list[dict[str, Tensor]] = []
    with torch.random.fork_rng(devices=cuda_devices(*modules)):
        torch.manual_seed(seed)
        for module in modules:
            twin = copy.deepcopy(module)
            twin.reset_parameters()  # pyright: ignore[reportCallIssue]
            own = twin.named_parameters(recurse=False)
            values.append({name: parameter.detach() for name, parameter in own})
    return values


def why_not_drawable(module: nn.Module) -> str | None:
    """Return why a module's own parameters cannot be drawn anew; None where they can."""
    if is_uninitialised(module):
        return "it has no shape yet: run one forward first"
    if not callable(getattr(module, "reset_parameters", None)):
        return "it has parameters and no method reset_parameters"
    return None
