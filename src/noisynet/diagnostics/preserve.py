"""Restoring what a check changes: parameters, buffers, gradients, modes, draws, generators."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ..layers import NoisyLayer
from ..layers.restoring import Restore, cuda_devices, restore_tensors, restored, write_back
from .recognise import find_noisy_layers


@contextmanager
def preserved(*parts: nn.Module | Optimizer | None) -> Iterator[None]:
    """Restore modules and optimizers afterwards, also after an error.

    This covers the identity, value and `grad` of every tensor, `training`, held draws and their
    scale, the optimizer's groups and state, and the global generators of Python, NumPy and torch
    (the CPU's, and those of the GPUs that the modules are on).
    """
    restores: list[Restore] = []
    for part in parts:
        if isinstance(part, nn.Module):
            restores += [*_modules(part), *restore_tensors(part)]
        elif isinstance(part, Optimizer):
            restores += _optimizer(part)
    restores += _generators()
    with restored(restores, cuda_devices(*parts)):
        yield


def _modules(module: nn.Module) -> Iterator[Restore]:
    layers = {id(found.module) for found in find_noisy_layers(module).values()}
    for part in module.modules():
        yield _attribute(part, "training")
        if isinstance(part, NoisyLayer):
            for name in part.noise_state.__slots__:
                yield _attribute(part.noise_state, name)
        elif id(part) in layers:
            # Some libraries keep ε in a plain attribute, maybe from the first forward on.
            yield _no_new_attributes(part)
            for name, value in list(vars(part).items()):
                if not name.startswith("_") or isinstance(value, Tensor):
                    yield _attribute(part, name)


def _attribute(owner: Any, name: str) -> Restore:
    """Return a function that restores an attribute: the same object, and the values of a tensor."""
    value = getattr(owner, name)
    content = value.detach().clone() if isinstance(value, Tensor) else None

    def restore() -> None:
        setattr(owner, name, value)
        if content is not None:
            write_back(value, content)

    return restore


def _no_new_attributes(module: nn.Module) -> Restore:
    former = set(vars(module))

    def restore() -> None:
        for name in vars(module).keys() - former:
            delattr(module, name)

    return restore


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
                    write_back(value, content)
                elif isinstance(value, list):
                    value[:] = content  # the history of LBFGS
                entries[key] = value
            optimizer.state[parameter] = entries

    yield restore


def _copied(value: Any) -> Any:
    if isinstance(value, list):
        return [*value]
    return value.detach().clone() if isinstance(value, Tensor) else value


def _generators() -> Iterator[Restore]:
    """Yield functions that restore Python's generator, and NumPy's if it is imported."""
    state = random.getstate()
    yield lambda: random.setstate(state)
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        legacy = numpy.random.get_state()
        yield lambda: numpy.random.set_state(legacy)
