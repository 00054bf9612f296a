"""Restore what forwards change in a model besides their output: buffers and global generators."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Restore = Callable[[], None]


@contextmanager
def buffers_preserved(model: nn.Module) -> Iterator[None]:
    """Restore a model's buffers and torch's global generators on exit.

    These are all that a forward changes: buffers hold running means, and dropout draws random
    numbers. For a model without buffers, only the state of the generators is copied.
    """
    with restored([*restore_tensors(model, ("_buffers",))], cuda_devices(model)):
        yield


def cuda_devices(*parts: nn.Module | Optimizer | None) -> list[torch.device]:
    """List the GPUs that modules and optimizers have tensors on."""
    tensors: list[Tensor] = []
    for part in parts:
        if isinstance(part, nn.Module):
            tensors += [*part.parameters(), *part.buffers()]
        elif isinstance(part, Optimizer):
            tensors += [one for group in part.param_groups for one in group["params"]]
    return sorted({one.device for one in tensors if one.device.type == "cuda"}, key=str)


@contextmanager
def restored(restores: Sequence[Restore], devices: Sequence[torch.device]) -> Iterator[None]:
    """Restore torch's global generators on exit, and call each of `restores`."""
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        with torch.no_grad():
            for restore in restores:
                restore()


def restore_tensors(
    module: nn.Module, registers: Sequence[str] = ("_parameters", "_buffers")
) -> Iterator[Restore]:
    """Yield a function for each tensor of a module to restore its identity, value and gradient."""
    for part in module.modules():
        for register in registers:
            own: dict[str, Tensor | None] | None = part.__dict__.get(register)
            # A traced module has its tensors outside Python, where no other can take their place.
            for name, tensor in list((getattr(part, register) if own is None else own).items()):
                if tensor is not None and not nn.parameter.is_lazy(tensor):
                    yield _entry(own, name, tensor)


def _entry(register: dict[str, Tensor | None] | None, name: str, tensor: Tensor) -> Restore:
    content, gradient = tensor.detach().clone(), tensor.grad
    former = None if gradient is None else gradient.detach().clone()

    def restore() -> None:
        if register is not None:
            register[name] = tensor
        write_back(tensor, content)
        if gradient is not None and former is not None:
            write_back(gradient, former)
        if tensor.grad is not gradient:
            tensor.grad = gradient

    return restore


def write_back(tensor: Tensor, content: Tensor) -> None:
    """Restore a tensor's former values; do not write to it if it still has them."""
    # A write would invalidate a tensor that is saved for a backward.
    if not torch.equal(tensor, content):
        tensor.detach().copy_(content)
