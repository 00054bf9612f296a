"""Launch the kernels of triton.py on tensors: shapes, tiles and dtypes in one place."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..noise import FactorisedNoise, IndependentNoise

PARTS = 8
"""How many parts a product over few rows is cut into, so that a GPU is filled."""

BLOCK_Q, BLOCK_P = 32, 64
"""Outputs and inputs of a tile; not measured on a GPU yet."""


@functools.cache
def kernels() -> ModuleType:
    """Import the kernels: they need Triton, which may be missing where none is used."""
    from . import triton

    return triton


class CounterNoise(IndependentNoise):
    """Hold a seed in place of ε_w of one weight; ε_b, q numbers, is as drawn.

    `weight` builds the values that the kernels make, in the dtype of a draw.
    """

    __slots__ = ("dtype", "seed", "shape")

    seed: Tensor
    shape: torch.Size
    dtype: torch.dtype

    def __init__(
        self, seed: Tensor, shape: torch.Size, bias: Tensor | None, dtype: torch.dtype
    ) -> None:
        """Keep a seed, one int64 on the device, for a weight of `shape` (q, p)."""
        for name, value in (("seed", seed), ("shape", shape), ("bias", bias), ("dtype", dtype)):
            object.__setattr__(self, name, value)

    @property
    def weight(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Build ε_w, shape (q, p)."""
        return combine(None, None, self, self.shape, self.dtype)

    @property
    def rows(self) -> None:
        """Give None: all rows share the draw."""
        return


KernelNoise = FactorisedNoise | CounterNoise


def bias_noise(noise: KernelNoise) -> Tensor:
    """Give ε_b of a layer that has a bias."""
    drawn = noise.bias_noise()
    assert drawn is not None, "a layer with bias draws noise for it"
    return drawn


def combine(
    mean: Tensor | None,
    scale: Tensor | None,
    noise: KernelNoise,
    shape: torch.Size,
    dtype: torch.dtype,
) -> Tensor:
    """Build mean + scale ⊙ ε_w in one pass, shape (q, p); None stands for 0 and 1."""
    outputs, inputs = shape
    source = _Source(noise)
    out = torch.empty(shape, dtype=dtype, device=source.device)
    grid = (_blocks(outputs, BLOCK_Q), _blocks(inputs, BLOCK_P))
    with _on(out):
        kernels().combine[grid](
            out,
            out if mean is None else mean,
            out if scale is None else scale,
            *source.tensors,
            inputs,
            outputs,
            HAS_MEAN=mean is not None,
            HAS_SCALE=scale is not None,
            KIND=source.kind,
            BQ=BLOCK_Q,
            BP=BLOCK_P,
        )
    return out


def product(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: KernelNoise,
) -> Tensor:
    """Apply the layer to x (B, p) in two launches: parts of the product, then their sum (B, q)."""
    (batch, inputs), outputs = x.shape, weight.shape[0]
    source = _Source(noise)
    chunk = _blocks(_blocks(inputs, PARTS), BLOCK_P) * BLOCK_P
    parts = _blocks(inputs, chunk)
    steady = torch.empty((parts, batch, outputs), dtype=torch.float32, device=x.device)
    noisy = torch.empty_like(steady) if source.per_row else steady
    y = torch.empty((batch, outputs), dtype=x.dtype, device=x.device)
    rows_of_tile = _rows_of_tile(batch)
    grid = (_blocks(batch, rows_of_tile), _blocks(outputs, BLOCK_Q))
    with _on(x):
        kernels().product[(*grid, parts)](
            steady,
            noisy,
            x,
            weight,
            weight_sigma,
            *source.tensors,
            batch,
            inputs,
            outputs,
            source.draws,
            chunk,
            **source.options(x.dtype),
            BB=rows_of_tile,
            BQ=BLOCK_Q,
            BP=BLOCK_P,
        )
        has_bias = bias is not None
        kernels().finish[grid](
            y,
            steady,
            noisy,
            bias if has_bias else steady,
            bias_sigma if has_bias else steady,
            source.of_bias(has_bias),
            batch,
            outputs,
            source.draws,
            parts,
            ROWS=source.per_row,
            HAS_BIAS=has_bias,
            BB=rows_of_tile,
            BQ=BLOCK_Q,
        )
    return y


def input_gradient(g: Tensor, weight: Tensor, weight_sigma: Tensor, noise: KernelNoise) -> Tensor:
    """Give ∂x (B, p) of g = ∂y (B, q)."""
    batch, (outputs, inputs) = len(g), weight.shape
    source = _Source(noise)
    out = torch.empty((batch, inputs), dtype=g.dtype, device=g.device)
    rows_of_tile = _rows_of_tile(batch)
    with _on(g):
        kernels().input_gradient[(_blocks(batch, rows_of_tile), _blocks(inputs, BLOCK_P))](
            out,
            g,
            weight,
            weight_sigma,
            *source.tensors,
            batch,
            inputs,
            outputs,
            source.draws,
            **source.options(g.dtype),
            BB=rows_of_tile,
            BQ=BLOCK_Q,
            BP=BLOCK_P,
        )
    return out


def weight_gradients(
    g: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, noise: KernelNoise
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Give ∂ of μ_w (q, p), μ_b (q,), σ_w (q, p) and σ_b (q,) in one launch."""
    batch, (outputs, inputs) = len(g), weight.shape
    source = _Source(noise)
    of_mean, of_sigma = torch.empty_like(weight), torch.empty_like(weight)
    of_bias = None if bias is None else torch.empty_like(bias)
    of_bias_sigma = None if bias is None else torch.empty_like(bias)
    rows_of_tile = _rows_of_tile(batch)
    with _on(g):
        kernels().weight_gradients[(_blocks(outputs, BLOCK_Q), _blocks(inputs, BLOCK_P))](
            of_mean,
            of_sigma,
            of_mean if of_bias is None else of_bias,
            of_mean if of_bias_sigma is None else of_bias_sigma,
            g,
            x,
            *source.tensors,
            source.of_bias(bias is not None),
            batch,
            inputs,
            outputs,
            source.draws,
            HAS_BIAS=bias is not None,
            **source.options(g.dtype),
            BB=rows_of_tile,
            BQ=BLOCK_Q,
            BP=BLOCK_P,
        )
    return of_mean, of_bias, of_sigma, of_bias_sigma


class _Source:
    """Say where the kernels read ε_w: pointers that a kind does not use stand in for each other."""

    def __init__(self, noise: KernelNoise) -> None:
        self.noise = noise
        self.kind, self.per_row, self.draws = 1, False, 1
        if isinstance(noise, CounterNoise):
            self.tensors = (noise.seed, noise.seed, noise.seed)
        else:
            self.kind, self.per_row = 0, noise.rows is not None
            flat = [t.reshape(-1, t.shape[-1]).contiguous() for t in (noise.input, noise.output)]
            self.draws = len(flat[0])
            self.tensors = (flat[0], flat[1], flat[1])
        self.device = self.tensors[0].device

    def of_bias(self, has_bias: bool) -> Tensor:
        """Give ε_b, (q,) or (R, q), or anything where there is no bias and none is read."""
        if isinstance(self.noise, FactorisedNoise):
            return self.tensors[1]
        return bias_noise(self.noise) if has_bias else self.tensors[0]

    def options(self, dtype: torch.dtype) -> dict[str, Any]:
        """Give what is constant in a kernel; products are as exact as PyTorch's own would be."""
        language: Any = kernels().tl
        rounded = language.bfloat16 if dtype == torch.bfloat16 else language.float32
        exact = torch.get_float32_matmul_precision() == "highest"
        return {
            "KIND": self.kind,
            "ROWS": self.per_row,
            "ROUND": rounded,
            "DOT": rounded if self.device.type == "cuda" else language.float32,
            "PRECISION": "ieee" if exact else "tf32",
        }


def _blocks(size: int, block: int) -> int:
    return -(-size // block)


def _rows_of_tile(batch: int) -> int:
    return 16 if batch <= 16 else 32


def _on(tensor: Tensor) -> AbstractContextManager[object]:
    """Make the tensor's device the current one: a launch goes there."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
