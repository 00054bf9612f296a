"""New initial values for a network's parameters, drawn from a seed."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..layers.layer import is_uninitialised
from ..layers.restoring import cuda_devices


def new_seed(generator: torch.Generator | None) -> int:
    """Draw a seed from a generator on any device, or from torch's global one if it is None."""
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**62, (), generator=generator, device=device))


def new_initial_values(modules: Iterable[nn.Module], seed: int) -> list[dict[str, Tensor]]:
    """Return new initial values for each module's own parameters, drawn by its `reset_parameters`.

    The modules stay as they are, and so do torch's global generators. `why_not_reinitialisable`
    says which modules cannot be reinitialised.
    """
    modules = list(modules)
    devices = cuda_devices(*modules)
    values: list[dict[str, Tensor]] = []
    with torch.random.fork_rng(devices=devices):
        # torch.manual_seed would also seed the GPUs whose generators are not restored.
        torch.default_generator.manual_seed(seed)
        for device in devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        for module in modules:
            twin = copy.deepcopy(module)
            twin.reset_parameters()  # pyright: ignore[reportCallIssue]
            own = twin.named_parameters(recurse=False)
            values.append({name: parameter.detach() for name, parameter in own})
    return values


def why_not_reinitialisable(module: nn.Module) -> str | None:
    """Return why a module's own parameters cannot be reinitialised; None if they can."""
    if is_uninitialised(module):
        return "it has no shape yet: run one forward first"
    own = [name for name, _ in module.named_parameters(recurse=False)]
    for name, value in vars(module).items():
        # Pruning, and the norms from before parametrisations: weight from weight_orig, for example.
        if isinstance(value, Tensor) and any(one.startswith(f"{name}_") for one in own):
            return f"its {name} is computed from other parameters (pruned or normalised)"
    if not callable(getattr(module, "reset_parameters", None)):
        return "it has parameters and no method reset_parameters"
    return None
