"""The two kinds of noise, and draws of them as values.

Nothing here depends on a module. A layer describes its noise by a spec, draws flat ε values, and
views them as the noise of its weights. A `Draw` has the noise of all layers of a module in one
tensor per device, dtype and kind, so drawing for a whole model usually takes one random call.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from .kernels.tracing import is_for_onnx

NoiseKind = Literal["factorised", "independent"]
NOISE_KINDS: tuple[str, ...] = get_args(NoiseKind)

NoiseName = Literal["factorised", "factorized", "independent"]
"""The name of a kind of noise, as arguments accept it, including the American spelling."""


def noise_kind(name: str) -> NoiseKind:
    """Return the kind of noise with this name; raise ValueError for an unknown name."""
    if name in ("factorised", "factorized"):
        return "factorised"
    if name == "independent":
        return "independent"
    raise ValueError(f"noise: got {name!r}, expected one of {', '.join(NOISE_KINDS)}")


def signed_sqrt(x: Tensor) -> Tensor:
    """Apply f(x) = sgn(x) √|x|, elementwise (arXiv 1706.10295, §3 (b))."""
    return x.abs().sqrt_().copysign_(x)


@dataclass(frozen=True, slots=True)
class FactorisedNoise:
    """f(ε_i) and f(ε_j) of one layer: ε_w = f(ε_j) f(ε_i)ᵀ and ε_b = f(ε_j).

    `input` is (p,) and `output` (q,) for one draw that all rows share; (rows, p) and (rows, q) for
    one draw per row. The weight of a grouped convolution is treated as one layer per group, each
    with its own ε_i, so `input` is (…, groups · p). `weight` is ε_w, if it has been built already.
    With `batch_first`, rows are the first dimension of a layer's input rather than the one beside
    its features.
    """

    input: Tensor
    output: Tensor
    groups: int = 1
    weight: Tensor | None = None
    batch_first: bool = False

    @property
    def rows(self) -> tuple[int, ...] | None:
        """Return the leading dimensions of the draw, or None where all rows share it."""
        return None if self.output.ndim == 1 else tuple(self.output.shape[:-1])

    def weight_noise(self, memory: Tensor | None = None) -> Tensor:
        """Build ε_w, shape (…, q, p); in `memory` of that shape, if it is built by one product."""
        if self.weight is not None:
            return self.weight
        if self.groups == 1:
            if self.output.ndim == 1:
                # One call in place of three.
                return torch.outer(self.output, self.input, out=memory)
            return self.output.unsqueeze(-1) * self.input.unsqueeze(-2)
        output = self.output.unflatten(-1, (self.groups, -1)).unsqueeze(-1)
        input = self.input.unflatten(-1, (self.groups, -1)).unsqueeze(-2)
        return (output * input).flatten(-3, -2)

    def bias_noise(self) -> Tensor:
        """Return ε_b, shape (…, q)."""
        return self.output

    def scaled(self, scale: Tensor) -> FactorisedNoise:
        """Return the noise times a scale, which multiplies f(ε_j), a factor of both ε_w and ε_b."""
        weight = None if self.weight is None else self.weight * scale
        return replace(self, output=self.output * scale, weight=weight)


@dataclass(frozen=True, slots=True)
class IndependentNoise:
    """ε_w and ε_b of one layer, one standard normal for each weight and bias.

    `weight` is (q, p) and `bias` (q,) for one draw that all rows share; (rows, q, p) and (rows, q)
    for one draw per row. `bias` is None for a layer without bias. With `batch_first`, rows are the
    first dimension of a layer's input rather than the one beside its features.
    """

    weight: Tensor
    bias: Tensor | None
    batch_first: bool = False

    @property
    def rows(self) -> tuple[int, ...] | None:
        """Return the leading dimensions of the draw, or None where all rows share it."""
        return None if self.weight.ndim == 2 else tuple(self.weight.shape[:-2])

    def weight_noise(self, memory: Tensor | None = None) -> Tensor:  # noqa: ARG002 - as above
        """Return ε_w, shape (…, q, p)."""
        return self.weight

    def bias_noise(self) -> Tensor | None:
        """Return ε_b, shape (…, q), or None without bias."""
        return self.bias

    def scaled(self, scale: Tensor) -> IndependentNoise:
        """Return the noise times a scale."""
        bias = None if self.bias is None else self.bias * scale
        return replace(self, weight=self.weight * scale, bias=bias)


@dataclass(frozen=True, slots=True)
class OutputNoise:
    """Standard normals ζ, one per output, shape (…, q): independent noise drawn at the outputs.

    Where every row has a fresh draw of independent noise, its outputs are exactly
    N(μ_w x + μ_b, σ_w² x² + σ_b²): mean + deviation ⊙ ζ, without any ε_w (the local
    reparameterisation, arXiv 1506.02557, §2.2). Such a draw is valid only for its own input.
    """

    normals: Tensor
    batch_first: ClassVar[bool] = False

    @property
    def rows(self) -> tuple[int, ...] | None:
        """Return the leading dimensions of the draw, or None for a single input."""
        return tuple(self.normals.shape[:-1]) or None

    def scaled(self, scale: Tensor) -> OutputNoise:
        """Return the noise times a scale, which multiplies the deviation of every output."""
        return OutputNoise(self.normals * scale)


WeightNoise = FactorisedNoise | IndependentNoise
"""The noise of one weight and its bias, as ε_w and ε_b."""

LinearNoise = WeightNoise | OutputNoise
"""The noise of a linear layer: at its weights, or at its outputs."""


class _OfSeveralWeights:
    """The base of the noise of layers with several weights, which all have the same rows."""

    __slots__ = ()

    parts: Any

    @property
    def rows(self) -> tuple[int, ...] | None:
        """Return the leading dimensions of the draw, or None where all rows share it."""
        return self.parts[0].rows


@dataclass(frozen=True, slots=True)
class CellNoise(_OfSeveralWeights):
    """The noise of a recurrent cell, of the input's weight and of the state's."""

    input: LinearNoise
    hidden: LinearNoise

    @property
    def parts(self) -> tuple[LinearNoise, ...]:
        """Return the noise of each weight."""
        return self.input, self.hidden

    def scaled(self, scale: Tensor) -> CellNoise:
        """Return the noise of both weights times a scale."""
        return CellNoise(self.input.scaled(scale), self.hidden.scaled(scale))


@dataclass(frozen=True, slots=True)
class SequenceNoise(_OfSeveralWeights):
    """The noise of each weight, in order, of a layer with several, as attention or `NoisyLSTM`."""

    parts: tuple[WeightNoise, ...]

    def scaled(self, scale: Tensor) -> SequenceNoise:
        """Return the noise of all weights times a scale."""
        return SequenceNoise(tuple(part.scaled(scale) for part in self.parts))


LayerNoise = LinearNoise | CellNoise | SequenceNoise


class _Spec:
    """The base of all specs: ε values are drawn as a flat tensor, and viewed as noise later."""

    __slots__ = ()

    kind: NoiseKind
    parts: Any

    @property
    def size(self) -> int:
        """Return the number of standard normals of a draw."""
        return sum(part.size for part in self.parts)

    def from_normals(self, normals: Tensor) -> Tensor:
        """Turn standard normals into this kind's ε values, still flat."""
        return signed_sqrt(normals) if self.kind == "factorised" else normals

    def draw(
        self,
        leading: Sequence[int] = (),
        *,
        device: torch.device,
        dtype: torch.dtype,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw flat ε values, shape (*leading, size)."""
        return self.from_normals(standard_normals((*leading, self.size), device, dtype, generator))


@dataclass(frozen=True, slots=True)
class NoiseSpec(_Spec):
    """The spec of the noise of one weight and its bias: kind, p inputs, q outputs and groups."""

    kind: NoiseKind
    inputs: int
    outputs: int
    bias: bool
    groups: int = 1

    @property
    def size(self) -> int:
        """Return the number of normals of a draw: groups · p + q, or pq plus q for a bias."""
        if self.kind == "factorised":
            return self.groups * self.inputs + self.outputs
        return self.inputs * self.outputs + (self.outputs if self.bias else 0)

    @property
    def parts(self) -> tuple[NoiseSpec, ...]:
        """Return the spec of each weight."""
        return (self,)

    def draw_rows(
        self, leading: Sequence[int], *, device: torch.device, dtype: torch.dtype
    ) -> LinearNoise:
        """Draw noise for each vector of a linear layer's input, shape (*leading, p).

        Independent noise is drawn at the outputs, which takes q normals per row instead of pq + q.
        """
        if self.kind == "independent":
            return OutputNoise(standard_normals((*leading, self.outputs), device, dtype, None))
        return self.unflatten(self.draw(leading, device=device, dtype=dtype))

    def unflatten(self, flat: Tensor, batch_first: bool = False) -> WeightNoise:
        """View flat ε values, shape (…, size), as the noise of one weight."""
        if self.kind == "factorised":
            sizes = [self.groups * self.inputs, self.outputs]
            input, output = torch.split_with_sizes(flat, sizes, -1)
            return FactorisedNoise(input, output, self.groups, None, batch_first)
        count = self.inputs * self.outputs
        weight, *bias = torch.split_with_sizes(
            flat, [count, self.outputs] if self.bias else [count], -1
        )
        weight = weight.view(*flat.shape[:-1], self.outputs, self.inputs)
        return IndependentNoise(weight, bias[0] if bias else None, batch_first)


@dataclass(frozen=True, slots=True)
class CellSpec(_Spec):
    """The spec of a recurrent cell's noise: of the input's weight, then of the state's."""

    kind: NoiseKind
    input: NoiseSpec
    hidden: NoiseSpec

    @property
    def parts(self) -> tuple[NoiseSpec, ...]:
        """Return the spec of each weight."""
        return self.input, self.hidden

    def unflatten(self, flat: Tensor, batch_first: bool = False) -> CellNoise:
        """View flat ε values, shape (…, size), as the noise of both weights."""
        return CellNoise(*_unflatten_parts(self.parts, flat, batch_first))


@dataclass(frozen=True, slots=True)
class SequenceSpec(_Spec):
    """The spec of the noise of a layer with several weights, one after the other."""

    kind: NoiseKind
    parts: tuple[NoiseSpec, ...]

    def unflatten(self, flat: Tensor, batch_first: bool = False) -> SequenceNoise:
        """View flat ε values, shape (…, size), as the noise of all weights."""
        return SequenceNoise(tuple(_unflatten_parts(self.parts, flat, batch_first)))


def _unflatten_parts(
    parts: Sequence[NoiseSpec], flat: Tensor, batch_first: bool
) -> Iterator[WeightNoise]:
    """View flat ε values as the noise of weights that lie one after the other."""
    start = 0
    for part in parts:
        yield part.unflatten(flat[..., start : start + part.size], batch_first)
        start += part.size


LayerSpec = NoiseSpec | CellSpec | SequenceSpec


def standard_normals(
    shape: Sequence[int],
    device: torch.device,
    dtype: torch.dtype,
    generator: torch.Generator | None,
) -> Tensor:
    """Draw standard normals.

    Raises TypeError or ValueError for a generator that does not fit, and RuntimeError inside an
    export to ONNX, which has no such operation.
    """
    if is_for_onnx():
        raise RuntimeError(
            "ONNX cannot draw noise: export noisynet.denoise(net), which has the means alone, or "
            "noisynet.hold(net) first, which keeps one draw"
        )
    if generator is None:
        # A call of its own: the operation that takes a generator does not support symbolic sizes.
        return torch.randn(tuple(shape), device=device, dtype=dtype)
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator: got {type(generator).__name__}, expected a torch.Generator or None"
        )
    if generator.device.type != device.type:
        raise ValueError(
            f"generator: got one on {generator.device}, expected one on {device}, as the layer is"
        )
    return torch.randn(tuple(shape), device=device, dtype=dtype, generator=generator)


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
    beside the features. Everything made from a draw keeps it. `noisynet.draw` makes it,
    `noisynet.using` applies it.
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
        flats = tuple(
            flat[index.to(flat.device) if isinstance(index, Tensor) else index]
            for flat in self.flats
        )
        return replace(self, flats=flats)

    def to(self, *args: Any, **kwargs: Any) -> Draw:
        """Return the draw moved or converted, as `torch.Tensor.to` does."""
        return replace(self, flats=tuple(flat.to(*args, **kwargs) for flat in self.flats))

    def clone(self) -> Draw:
        """Copy the draw into memory of its own."""
        return replace(self, flats=tuple(flat.clone() for flat in self.flats))

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


def tensor_to_bytes(tensor: Tensor) -> bytes:
    """Serialise a tensor to bytes, which, unlike its own pickling, never share memory."""
    buffer = io.BytesIO()
    torch.save(tensor.detach().clone(), buffer)
    return buffer.getvalue()


def tensor_from_bytes(data: bytes, place: Any = "cpu") -> Tensor:
    """Restore a tensor from `tensor_to_bytes` on the CPU, or where torch's `map_location` says."""
    return torch.load(io.BytesIO(data), map_location=place, weights_only=True)


def _former_device_or_cpu(storage: Any, device: str) -> Any:
    try:
        return torch.serialization.default_restore_location(storage, device)
    except RuntimeError:  # this machine has no such device
        return storage


def _draw_from_bytes(
    flats: tuple[bytes, ...], slots: tuple[Slot, ...], batch_first: bool = False
) -> Draw:
    tensors = (tensor_from_bytes(flat, _former_device_or_cpu) for flat in flats)
    return Draw(tuple(tensors), slots, batch_first)


# So that `torch.load` reads a saved draw as it reads tensors, without weights_only=False.
torch.serialization.add_safe_globals([Slot, NoiseSpec, CellSpec, SequenceSpec, _draw_from_bytes])
