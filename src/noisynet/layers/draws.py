"""Draws of noise as values.

A `Draw` has the noise of all layers of a module in one tensor per device, dtype and kind, so
drawing for a whole model usually takes one random call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from .noise import CellSpec, LayerNoise, LayerSpec, NoiseSpec, SequenceSpec
from .tensor_bytes import tensor_from_bytes, tensor_to_bytes


def check_rows(rows: int | None) -> None:
    """Raise ValueError unless `rows` is None or a positive integer."""
    if rows is None:
        return
    if isinstance(rows, bool) or not isinstance(rows, int | Integral) or rows < 1:
        raise ValueError(f"rows: got {rows!r}, expected a positive integer or None")


def check_batch_first(batch_first: bool | None, rows: int | None) -> None:
    """Raise ValueError unless `batch_first` is a bool or None, and is True only with rows."""
    if batch_first is not None and not isinstance(batch_first, bool):
        raise ValueError(f"batch_first: got {batch_first!r}, expected True or False")
    if batch_first and rows is None:
        raise ValueError(
            "batch_first: got True for a draw that all rows share, expected it with rows=…"
        )


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one layer's noise in a `Draw`."""

    name: str
    spec: LayerSpec
    group: int
    start: int


@dataclass(frozen=True)
class Draw:
    """One draw of all noisy layers of a module, as plain tensors.

    With `rows`, it has that many independent draws, one for each row of a batch, and can be indexed
    like a tensor's first dimension: `draw[3:5]`, `draw[index]`, `draw[mask]`; `draw[2]` is a single
    draw that all rows share. It can be moved with `to`, copied, pickled and sent to another process
    (as bytes: nothing is shared); where its device does not exist, it arrives on the CPU.
    `batch_first` says which dimension of a layer's input the rows are: the first one, or the one
    beside the features. Everything made from a draw keeps it, and can be learned with, even if it
    was made under `torch.inference_mode`. `noisynet.draw` makes it, `noisynet.using` applies it.
    """

    flats: tuple[Tensor, ...]
    slots: tuple[Slot, ...]
    batch_first: bool = False

    @property
    def rows(self) -> int | None:
        """Return the number of draws, or None for a single draw that all rows share."""
        return self.flats[0].shape[0] if self.flats[0].ndim == 2 else None

    def flat(self, slot: Slot) -> Tensor:
        """View the ε values of one layer, shape (size,) or (rows, size)."""
        return self.flats[slot.group][..., slot.start : slot.start + slot.spec.size]

    def layer(self, name: str) -> LayerNoise:
        """View the noise of one layer; raise KeyError for a name that was not drawn."""
        for slot in self.slots:
            if slot.name == name:
                return slot.spec.unflatten(self.flat(slot), self.batch_first)
        raise KeyError(name)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Draw:
        """Pick rows; raise IndexError for a draw without rows, or an index that does not fit."""
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
            if index.dtype != torch.bool:
                index = index.long()  # torch would take uint8 for a mask
        return self._with_each(
            lambda flat: flat[index.to(flat.device) if isinstance(index, Tensor) else index]
        )

    def to(self, *args: Any, **kwargs: Any) -> Draw:
        """Return the draw moved or converted, as `torch.Tensor.to` does."""
        return self._with_each(lambda flat: flat.to(*args, **kwargs))

    def clone(self) -> Draw:
        """Copy the draw into memory of its own."""
        return self._with_each(lambda flat: flat.clone())

    def _with_each(self, change: Callable[[Tensor], Tensor]) -> Draw:
        # Not a decorator: torch.compile does not accept a chain such as d[1:].clone() with it.
        with torch.inference_mode(False):
            return replace(self, flats=tuple(map(change, self.flats)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by value, so that no two processes ever share the memory of a draw."""
        flats = tuple(tensor_to_bytes(flat) for flat in self.flats)
        return _draw_from_bytes, (flats, self.slots, self.batch_first)


def _as_index(index: Any) -> Tensor:
    try:
        tensor = torch.as_tensor(index)
    except (RuntimeError, TypeError, ValueError):
        raise IndexError(
            f"index: got {index!r}, expected a slice, integers or booleans: a draw has rows only"
        ) from None
    # An empty list has no dtype to read.
    return tensor if tensor.numel() else tensor.long()


def _former_device_or_cpu(storage: Any, device: str) -> Any:
    try:
        return torch.serialization.default_restore_location(storage, device)
    except RuntimeError:  # this machine has no such device
        return storage


@torch.inference_mode(False)
def _draw_from_bytes(
    flats: tuple[bytes, ...], slots: tuple[Slot, ...], batch_first: bool = False
) -> Draw:
    tensors = (tensor_from_bytes(flat, _former_device_or_cpu) for flat in flats)
    return Draw(tuple(tensors), slots, batch_first)


# So that `torch.load` reads a saved draw as it reads tensors, without weights_only=False.
torch.serialization.add_safe_globals([Slot, NoiseSpec, CellSpec, SequenceSpec, _draw_from_bytes])
