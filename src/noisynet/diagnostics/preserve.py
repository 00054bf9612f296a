"""Everything left as it was found: parameters, buffers, gradients, modes, draws, generators."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..layers import NoisyLayer
from .recognise import find_noisy_layers

Restore = Callable[[], None]


@contextmanager
def preserved(*parts: nn.Module | Optimizer | None) -> Iterator[None]:
    """Restore modules and optimizers afterwards, also after an error.

    Restored are every tensor's identity and value, `grad`, `training`, the draws that are held, the
    optimizer's state, and the global generators of Python, of NumPy and of torch: the CPU's and
    those of the GPUs that the modules lie on.
    """
    restores: list[Restore] = []
    for part in parts:
        if isinstance(part, nn.Module):
            restores += [*_modules(part), *_tensors(part)]
        elif isinstance(part, Optimizer):
            restores += _optimizer(part)
    restores += _generators()
    with _restored(restores, cuda_devices(*parts)):
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
def buffers_preserved(model: nn.Module) -> Iterator[None]:
    """Restore a model's buffers and torch's global generators afterwards.

    That is what forwards alone change: running means, and the numbers of dropout. Cheaper than
    `preserved`: without buffers nothing is copied but the generators' state.
    """
    with _restored([*_tensors(model, ("_buffers",))], cuda_devices(model)):
        yield


@contextmanager
def _restored(restores: Sequence[Restore], devices: Sequence[torch.device]) -> Iterator[None]:
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        with torch.no_grad():
            for restore in restores:
                restore()


def _modules(module: nn.Module) -> Iterator[Restore]:
    layers = {id(found.module) for found in find_noisy_layers(module).values()}
    for part in module.modules():
        yield _attribute(part, "training")
        if isinstance(part, NoisyLayer):
            for name in (
                "held",
                "per_row",
                "static",
                "batch_first",
                "override",
                "override_batch_first",
            ):
                yield _attribute(part.noise_state, name)
        elif id(part) in layers:
            # Some keep ε in a plain attribute.
            for name, value in list(vars(part).items()):
                if not name.startswith("_") or isinstance(value, Tensor):
                    yield _attribute(part, name)


def _attribute(owner: Any, name: str) -> Restore:
    """Return what restores an attribute: the object, and a tensor's values."""
    value = getattr(owner, name)
    content = value.detach().clone() if isinstance(value, Tensor) else None

    def restore() -> None:
        setattr(owner, name, value)
        if content is not None:
            _write_back(value, content)

    return restore


def _tensors(
    module: nn.Module, registers: Sequence[str] = ("_parameters", "_buffers")
) -> Iterator[Restore]:
    for part in module.modules():
        for register in registers:
            own: dict[str, Tensor | None] = part.__dict__[register]
            for name, tensor in list(own.items()):
                if tensor is not None and not nn.parameter.is_lazy(tensor):
                    yield _entry(own, name, tensor)


def _entry(register: dict[str, Tensor | None], name: str, tensor: Tensor) -> Restore:
    content, gradient = tensor.detach().clone(), tensor.grad
    former = None if gradient is None else gradient.detach().clone()

    def restore() -> None:
        register[name] = tensor
        _write_back(tensor, content)
        if gradient is not None and former is not None:
            _write_back(gradient, former)
        if tensor.grad is not gradient:
            tensor.grad = gradient

    return restore


def _write_back(tensor: Tensor, content: Tensor) -> None:
    # Unchanged tensors are not written to: they may have been kept for a backward.
    if not torch.equal(tensor, content):
        tensor.detach().copy_(content)


def _optimizer(optimizer: Optimizer) -> Iterator[Restore]:
    groups = [{key: one for key, one in group.items() if key != "params"}
              for group in optimizer.param_groups]  # fmt: skip
    former = {
        parameter: {key: (one, _copied(one)) for key, one in state.items()}
        for parameter, state in optimizer.state.items()
    }

    def restore() -> None:
        for group, values in zip(optimizer.param_groups, groups, strict=True):
            group.update(values)
        optimizer.state.clear()
        for parameter, state in former.items():
            entries: dict[str, Any] = {}
            for key, (value, content) in state.items():
                if isinstance(value, Tensor):
                    _write_back(value, content)
                entries[key] = value
            optimizer.state[parameter] = entries

    yield restore


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _generators() -> Iterator[Restore]:
    """Yield what restores Python's generator, and NumPy's where it is imported."""
    state = random.getstate()
    yield lambda: random.setstate(state)
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        legacy = numpy.random.get_state()
        yield lambda: numpy.random.set_state(legacy)
