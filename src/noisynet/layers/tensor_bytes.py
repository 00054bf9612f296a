"""Tensors as bytes, for pickles that never share memory with another process."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor


def tensor_to_bytes(tensor: Tensor) -> bytes:
    """Serialise a tensor to bytes, which, unlike its own pickling, never share memory."""
    buffer = io.BytesIO()
    torch.save(tensor.detach().clone(), buffer)
    return buffer.getvalue()


def tensor_from_bytes(data: bytes, place: Any = "cpu") -> Tensor:
    """Restore a tensor from `tensor_to_bytes` on the CPU, or where torch's `map_location` says."""
    return torch.load(io.BytesIO(data), map_location=place, weights_only=True)
