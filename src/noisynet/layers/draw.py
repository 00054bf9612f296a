"""A draw of noise as a value: the two kinds of noise, f(x), rows, generators.

Nothing here knows a module. A layer says with a `NoiseSpec` what it needs, and gets `LayerNoise`
back; a `Draw` holds the noise of all layers of a module in one tensor per device and dtype, so
that drawing for a whole model costs one random call.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

NoiseKind = Literal["factorised", "independent"]
NOISE_KINDS: tuple[str, ...] = get_args(NoiseKind)


def signed_sqrt(x: Tensor) -> Tensor:
    """Apply f(x) = sgn(x) √|x|, elementwise (arXiv 1706.10295, §3 (b))."""
    return x.abs().sqrt_().copysign_(x)


@dataclass(frozen=True, slots=True)
class FactorisedNoise:
    """Hold f(ε_i) and f(ε_j) of one layer: ε_w = f(ε_j) f(ε_i)ᵀ and ε_b = f(ε_j).

    `input` is (p,) and `output` (q,) for one draw that all rows share; (rows, p) and (rows, q) for
    one draw per row.
    """

    input: Tensor
    output: Tensor

    @property
    def rows(self) -> tuple[int, ...] | None:
        """Give the leading dimensions of the draw, or None where all rows share it."""
        return tuple(self.output.shape[:-1]) or None

    def weight_noise(self) -> Tensor:
        """Build ε_w, shape (…, q, p)."""
        return self.output.unsqueeze(-1) * self.input.unsqueeze(-2)

    def bias_noise(self) -> Tensor:
        """Give ε_b, shape (…, q)."""
        return self.output

    def clone(self) -> FactorisedNoise:
        """Copy the noise into memory of its own."""
        return FactorisedNoise(self.input.clone(), self.output.clone())


@dataclass(frozen=True, slots=True)
class IndependentNoise:
    """Hold ε_w and ε_b of one layer, one standard normal for each weight and bias.

    `weight` is (q, p) and `bias` (q,) for one draw that all rows share; (rows, q, p) and (rows, q)
    for one draw per row. `bias` is None for a layer without bias.
    """

    weight: Tensor
    bias: Tensor | None

    @property
    def rows(self) -> tuple[int, ...] | None:
        """Give the leading dimensions of the draw, or None where all rows share it."""
        return tuple(self.weight.shape[:-2]) or None

    def weight_noise(self) -> Tensor:
        """Give ε_w, shape (…, q, p)."""
        return self.weight

    def bias_noise(self) -> Tensor | None:
        """Give ε_b, shape (…, q), or None without bias."""
        return self.bias

    def clone(self) -> IndependentNoise:
        """Copy the noise into memory of its own."""
        return IndependentNoise(
            self.weight.clone(), None if self.bias is None else self.bias.clone()
        )


LayerNoise = FactorisedNoise | IndependentNoise


@dataclass(frozen=True, slots=True)
class NoiseSpec:
    """Say what one layer draws: p inputs, q outputs, which kind, with or without bias."""

    kind: NoiseKind
    inputs: int
    outputs: int
    bias: bool

    @property
    def size(self) -> int:
        """Count the standard normals of one draw: p + q, or pq + q."""
        if self.kind == "factorised":
            return self.inputs + self.outputs
        return self.inputs * self.outputs + (self.outputs if self.bias else 0)

    def shape(self, normals: Tensor) -> Tensor:
        """Turn raw standard normals into this kind's ε values, still flat."""
        return signed_sqrt(normals) if self.kind == "factorised" else normals

    def unflatten(self, flat: Tensor) -> LayerNoise:
        """View flat ε values, shape (…, size), as the noise of one layer."""
        if self.kind == "factorised":
            return FactorisedNoise(flat[..., : self.inputs], flat[..., self.inputs :])
        count = self.inputs * self.outputs
        weight = flat[..., :count].unflatten(-1, (self.outputs, self.inputs))
        return IndependentNoise(weight, flat[..., count:] if self.bias else None)

    def draw(
        self,
        leading: Sequence[int] = (),
        *,
        device: torch.device,
        dtype: torch.dtype,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw flat ε values, shape (*leading, size)."""
        return self.shape(standard_normals((*leading, self.size), device, dtype, generator))


def standard_normals(
    shape: Sequence[int],
    device: torch.device,
    dtype: torch.dtype,
    generator: torch.Generator | None,
) -> Tensor:
    """Draw standard normals; raises ValueError for a generator of another device."""
    if generator is not None and generator.device.type != device.type:
        raise ValueError(
            f"generator: got one on {generator.device}, expected one on {device}, as the layer is"
        )
    return torch.randn(tuple(shape), device=device, dtype=dtype, generator=generator)


def check_rows(rows: int | None) -> None:
    """Raise ValueError unless `rows` is None or a positive integer."""
    if rows is not None and (isinstance(rows, bool) or not isinstance(rows, int) or rows < 1):
        raise ValueError(f"rows: got {rows!r}, expected a positive integer or None")


@dataclass(frozen=True, slots=True)
class Slot:
    """Say where the noise of one layer lies in a `Draw`."""

    name: str
    spec: NoiseSpec
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
            index = torch.as_tensor(index)
        if isinstance(index, Tensor):
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
