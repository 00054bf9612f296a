"""Reused memory for large temporaries, whose fresh pages cost more than the work that fills them.

Memory is reused only on the CPU, where an allocation of megabytes is given back to the system and
faulted in again at the next call; a GPU's allocator keeps its memory. Each thread has its own
buffers.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

KEPT = 8
"""Number of buffers that a thread keeps, one per shape and dtype: those used last."""


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.tensors: dict[tuple[torch.Size, torch.dtype], Tensor] = {}
        self.owners: dict[tuple[torch.Size, torch.dtype], object] = {}


_buffers = _Buffers()


def borrow(shape: torch.Size, dtype: torch.dtype, device: torch.device, owner: object) -> Tensor:
    """Return memory for a temporary, which is the owner's until another one borrows it."""
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    key = (shape, dtype)
    tensor = _buffers.tensors.pop(key, None)
    if tensor is None:
        while len(_buffers.tensors) >= KEPT:
            oldest = next(iter(_buffers.tensors))
            del _buffers.tensors[oldest]
            _buffers.owners.pop(oldest, None)
        # Memory made under inference_mode could not be written to outside of it.
        with torch.inference_mode(False):
            # The device is explicit, since the default device may be another one.
            tensor = torch.empty(shape, dtype=dtype, device=device)
    _buffers.tensors[key] = tensor
    _buffers.owners[key] = owner
    return tensor


def still_held_by(owner: object, shape: torch.Size, dtype: torch.dtype) -> Tensor | None:
    """Return the memory as its owner left it; None if another one has borrowed it since."""
    key = (shape, dtype)
    return _buffers.tensors[key] if _buffers.owners.get(key) is owner else None
