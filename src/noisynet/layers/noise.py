"""The two kinds of noise: f(x), what a layer draws, and the noise of one layer as a value.

Nothing here knows a module. A layer says with a spec what it needs, and gets its noise back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

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
    one draw per row. A weight of several groups, as grouped convolutions have, is as many layers
    side by side, each with its own ε_i: `input` is then (…, groups · p). `weight` is ε_w where it
    is built already.
    """

    input: Tensor
    output: Tensor
    groups: int = 1
    weight: Tensor | None = None

    @property
    def rows(self) -> tuple[int, ...] | None:
        """Give the leading dimensions of the draw, or None where all rows share it."""
        return None if self.output.ndim == 1 else tuple(self.output.shape[:-1])

    def weight_noise(self) -> Tensor:
        """Build ε_w, shape (…, q, p)."""
        if self.weight is not None:
            return self.weight
        if self.groups == 1:
            return self.output.unsqueeze(-1) * self.input.unsqueeze(-2)
        output = self.output.unflatten(-1, (self.groups, -1)).unsqueeze(-1)
        input = self.input.unflatten(-1, (self.groups, -1)).unsqueeze(-2)
        return (output * input).flatten(-3, -2)

    def bias_noise(self) -> Tensor:
        """Give ε_b, shape (…, q)."""
        return self.output


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


@dataclass(frozen=True, slots=True)
class OutputNoise:
    """Hold standard normals ζ, one per output, shape (…, q): independent noise seen at the output.

    Where every row has a fresh draw of independent noise, its outputs are exactly
    N(μ_w x + μ_b, σ_w² x² + σ_b²): mean + deviation ⊙ ζ, without any ε_w (the local
    reparameterisation, arXiv 1506.02557, §2.2). Such a draw belongs to its input.
    """

    normals: Tensor

    @property
    def rows(self) -> tuple[int, ...] | None:
        """Give the leading dimensions of the draw, or None for a single input."""
        return tuple(self.normals.shape[:-1]) or None


WeightNoise = FactorisedNoise | IndependentNoise
"""The noise of one weight and its bias, as ε_w and ε_b."""

LinearNoise = WeightNoise | OutputNoise
"""The noise of a linear layer: at its weight, or seen at its output."""


@dataclass(frozen=True, slots=True)
class CellNoise:
    """Hold the noise of a recurrent cell: that of its input's weight and of its state's."""

    input: LinearNoise
    hidden: LinearNoise

    @property
    def rows(self) -> tuple[int, ...] | None:
        """Give the leading dimensions of the draw, or None where all rows share it."""
        return self.input.rows


LayerNoise = LinearNoise | CellNoise


class _Spec:
    """What the specs of all layers share: ε values are drawn flat, and viewed as noise later."""

    __slots__ = ()

    kind: NoiseKind

    @property
    def size(self) -> int:
        raise NotImplementedError

    def shape(self, normals: Tensor) -> Tensor:
        """Turn raw standard normals into this kind's ε values, still flat."""
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
        return self.shape(standard_normals((*leading, self.size), device, dtype, generator))


@dataclass(frozen=True, slots=True)
class NoiseSpec(_Spec):
    """Say what one weight and its bias draw: p inputs, q outputs, which kind, how many groups."""

    kind: NoiseKind
    inputs: int
    outputs: int
    bias: bool
    groups: int = 1

    @property
    def size(self) -> int:
        """Count the standard normals of one draw: groups · p + q, or pq + q."""
        if self.kind == "factorised":
            return self.groups * self.inputs + self.outputs
        return self.inputs * self.outputs + (self.outputs if self.bias else 0)

    def unflatten(self, flat: Tensor) -> WeightNoise:
        """View flat ε values, shape (…, size), as the noise of one weight."""
        if self.kind == "factorised":
            inputs = self.groups * self.inputs
            return FactorisedNoise(flat[..., :inputs], flat[..., inputs:], self.groups)
        count = self.inputs * self.outputs
        weight = flat[..., :count].unflatten(-1, (self.outputs, self.inputs))
        return IndependentNoise(weight, flat[..., count:] if self.bias else None)


@dataclass(frozen=True, slots=True)
class CellSpec(_Spec):
    """Say what a recurrent cell draws: for its input's weight, then for its state's."""

    kind: NoiseKind
    input: NoiseSpec
    hidden: NoiseSpec

    @property
    def size(self) -> int:
        """Count the standard normals of one draw."""
        return self.input.size + self.hidden.size

    def unflatten(self, flat: Tensor) -> CellNoise:
        """View flat ε values, shape (…, size), as the noise of both weights."""
        return CellNoise(
            self.input.unflatten(flat[..., : self.input.size]),
            self.hidden.unflatten(flat[..., self.input.size :]),
        )


LayerSpec = NoiseSpec | CellSpec


def standard_normals(
    shape: Sequence[int],
    device: torch.device,
    dtype: torch.dtype,
    generator: torch.Generator | None,
) -> Tensor:
    """Draw standard normals; raises ValueError for a generator of another device, or for none."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator: got {type(generator).__name__}, expected a torch.Generator or None"
        )
    if generator is not None and generator.device.type != device.type:
        raise ValueError(
            f"generator: got one on {generator.device}, expected one on {device}, as the layer is"
        )
    return torch.randn(tuple(shape), device=device, dtype=dtype, generator=generator)
