"""A draw of noise for a whole module, as a value that can be indexed, moved, saved and sent.

A `Draw` holds the noise of all layers in one tensor per device, dtype and kind, so that drawing
for a whole model costs one random call.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from .noise import CellSpec, LayerNoise, LayerSpec, NoiseSpec


def check_rows(rows: int | None) -> None:
    """Raise ValueError unless `rows` is None or a positive integer."""
    if rows is None:
        return
    if isinstance(rows, bool) or not isinstance(rows, int | Integral) or rows < 1:
        raise ValueError(f"rows: got {rows!r}, expected a positive integer or None")


@dataclass(frozen=True, slots=True)
class Slot:
    """Say where the noise of one layer lies in a `Draw`."""

    name: str
    spec: LayerSpec
    group: int
    start: int


@dataclass(frozen=True)
class Draw:
    """Hold one draw of all noisy layers of a module, as plain tensors.

    With `rows`, it holds that many independent draws, one for each row of a batch, and can be
    indexed like a tensor's first dimension: `draw[3:5]`, `draw[index]`, `draw[mask]`; `draw[2]`
    is a single draw that all rows share. It can be moved with `to`, copied, pickled and sent to
    another process (as bytes: nothing is shared). `noisynet.draw` makes it, `noisynet.using`
    applies it.
    """

    flats: tuple[Tensor, ...]
    slots: tuple[Slot, ...]

    @property
    def rows(self) -> int | None:
        """Count the draws, or None for a single draw that all rows share."""
        return self.flats[0].shape[0] if self.flats[0].ndim == 2 else None

    def flat(self, slot: Slot) -> Tensor:
        """View the ε values of one layer, shape (size,) or (rows, size)."""
        return self.flats[slot.group][..., slot.start : slot.start + slot.spec.size]

    def layer(self, name: str) -> LayerNoise:
        """View the noise of one layer; raises KeyError for a name that is not drawn."""
        for slot in self.slots:
            if slot.name == name:
                return slot.spec.unflatten(self.flat(slot))
        raise KeyError(name)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Draw:
        """Pick rows; raises IndexError for a draw without rows or an index that is out of it."""
        if self.rows is None:
            raise IndexError("this draw has no rows to pick from: make it with draw(net, rows=…)")
        if not isinstance(index, Tensor | slice | int) or isinstance(index, bool):
            index = _as_index(index)
        if isinstance(index, Tensor):
            if index.dtype.is_floating_point or index.dtype.is_complex:
                raise IndexError(f"index: got {index.dtype}, expected integers or booleans")
            if index.dtype == torch.bool and index.shape != (self.rows,):
                raise IndexError(
                    f"mask: got shape {tuple(index.shape)}, expected ({self.rows},), one per row"
                )
            if index.ndim > 1:
                raise IndexError(
                    f"index: got {index.ndim} dimensions, expected one: a draw has rows only"
                )
        flats = tuple(
            flat[index.to(flat.device) if isinstance(index, Tensor) else index]
            for flat in self.flats
        )
        return replace(self, flats=flats)

    def to(self, *args: Any, **kwargs: Any) -> Draw:
        """Move or convert as `torch.Tensor.to` does."""
        return replace(self, flats=tuple(flat.to(*args, **kwargs) for flat in self.flats))

    def clone(self) -> Draw:
        """Copy the draw into memory of its own."""
        return replace(self, flats=tuple(flat.clone() for flat in self.flats))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by value, so that no two processes ever share the memory of a draw."""
        return _draw_from_bytes, (tuple(tensor_to_bytes(flat) for flat in self.flats), self.slots)


def _as_index(index: Any) -> Tensor:
    try:
        tensor = torch.as_tensor(index)
    except (RuntimeError, TypeError, ValueError):
        raise IndexError(
            f"index: got {index!r}, expected a slice, integers or booleans: a draw has rows only"
        ) from None
    # An empty list has no dtype to read.
    return tensor if tensor.numel() else tensor.long()


def tensor_to_bytes(tensor: Tensor) -> bytes:
    """Write a tensor as bytes: unlike its own pickling, this never hands out shared memory."""
    buffer = io.BytesIO()
    torch.save(tensor.detach().clone(), buffer)
    return buffer.getvalue()


def tensor_from_bytes(data: bytes, device: str | None = None) -> Tensor:
    """Read what `tensor_to_bytes` wrote, onto the device it came from or another one."""
    return torch.load(io.BytesIO(data), map_location=device, weights_only=True)


def _draw_from_bytes(flats: tuple[bytes, ...], slots: tuple[Slot, ...]) -> Draw:
    return Draw(tuple(tensor_from_bytes(flat) for flat in flats), slots)


# So that `torch.load` reads a saved draw as it reads tensors, without weights_only=False.
torch.serialization.add_safe_globals([Slot, NoiseSpec, CellSpec, _draw_from_bytes])
