"""The two kinds of noise, and the specs by which layers draw them.

Nothing here depends on a module. A layer describes its noise by a spec, draws flat ε values, and
views them as the noise of its weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
    """The noise of each weight, in order, of a layer with several, such as `NoisyLSTM`."""

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
