"""Launch the kernels of triton.py on tensors: shapes, tiles and dtypes in one place."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..noise import FactorisedNoise, IndependentNoise
from ..weights import Weights
from . import philox

PARTS = 8
"""Number of parts that a product over few rows is split into, to keep a GPU busy."""

BLOCK_Q, BLOCK_P = 32, 64
"""Outputs and inputs of a tile; these sizes were not chosen by measurement."""


@functools.cache
def kernels() -> ModuleType:
    """Import the kernels at their first use, since Triton may be missing."""
    from . import triton

    return triton


class CounterNoise(IndependentNoise):
    """Independent noise of one weight, with a seed in place of ε_w; ε_b is stored as q numbers.

    `weight` builds the values that the kernels generate, by plain operations, in the dtype of a
    draw.
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
        object.__setattr__(self, "batch_first", False)

    @property
    def weight(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Build ε_w, shape (q, p)."""
        return philox.normals(self.seed, self.shape).to(self.dtype)

    @property
    def rows(self) -> None:
        """Return None: all rows share the draw."""
        return


KernelNoise = FactorisedNoise | CounterNoise


def combine(
    mean: Tensor | None,
    scale: Tensor | None,
    noise: KernelNoise,
    shape: torch.Size,
    dtype: torch.dtype,
) -> Tensor:
    """Build mean + scale ⊙ ε_w in one pass, shape (q, p); None is 0 as mean and 1 as scale."""
    outputs, inputs = shape
    source = _Source(noise)
    out = torch.empty(shape, dtype=dtype, device=source.device)
    first = out if mean is None else mean
    second = out if scale is None else scale
    given = {"HAS_MEAN": mean is not None, "HAS_SCALE": scale is not None}
    options = {"KIND": source.kind, "BQ": BLOCK_Q, "BP": BLOCK_P, **given}
    with _on(out):
        kernels().combine[_blocks(outputs, BLOCK_Q), _blocks(inputs, BLOCK_P)](
            out, first, second, *source.tensors, inputs, outputs, **options
        )
    return out


def product(x: Tensor, weights: Weights, noise: KernelNoise) -> Tensor:
    """Apply the layer to x (B, p) in two launches: parts of the product, then their sum (B, q)."""
    weight, bias, weight_sigma, bias_sigma = weights
    (batch, inputs), outputs = x.shape, weight.shape[0]
    source = _Source(noise)
    chunk = _blocks(_blocks(inputs, PARTS), BLOCK_P) * BLOCK_P
    parts = _blocks(inputs, chunk)
    steady = torch.empty((parts, batch, outputs), dtype=torch.float32, device=x.device)
    noisy = torch.empty_like(steady) if source.per_row else steady
    y = torch.empty((batch, outputs), dtype=x.dtype, device=x.device)
    options = source.options(x)
    tile = {name: options[name] for name in ("ROWS", "BB", "BQ")}
    grid = (_blocks(batch, options["BB"]), _blocks(outputs, BLOCK_Q))
    has_bias = bias is not None
    # Without a bias, the kernels read none, so any tensor can take its place.
    biases = (bias, bias_sigma) if has_bias else (steady, steady)
    sizes = (batch, inputs, outputs, source.draws, chunk)
    with _on(x):
        kernels().product[(*grid, parts)](
            steady, noisy, x, weight, weight_sigma, *source.tensors, *sizes, **options
        )
        summed = (*biases, source.of_bias, batch, outputs, source.draws, parts)
        kernels().finish[grid](y, steady, noisy, *summed, HAS_BIAS=has_bias, **tile)
    return y


def input_gradient(g: Tensor, weights: Weights, noise: KernelNoise) -> Tensor:
    """Return the input's gradient ∂x (B, p), given g = ∂y (B, q)."""
    batch, (outputs, inputs) = len(g), weights.weight.shape
    source = _Source(noise)
    out = torch.empty((batch, inputs), dtype=g.dtype, device=g.device)
    options = source.options(g)
    given = (out, g, weights.weight, weights.weight_sigma, *source.tensors)
    with _on(g):
        kernels().input_gradient[_blocks(batch, options["BB"]), _blocks(inputs, BLOCK_P)](
            *given, batch, inputs, outputs, source.draws, **options
        )
    return out


def weight_gradients(
    g: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, noise: KernelNoise
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Return the gradients of μ_w (q, p), μ_b (q,), σ_w (q, p) and σ_b (q,), in one launch."""
    batch, (outputs, inputs) = len(g), weight.shape
    source = _Source(noise)
    of_mean, of_sigma = torch.empty_like(weight), torch.empty_like(weight)
    of_bias = None if bias is None else torch.empty_like(bias)
    of_bias_sigma = None if bias is None else torch.empty_like(bias)
    # Without a bias, the kernel writes no gradient of it, so any tensor can take its place.
    biases = (of_mean, of_mean) if bias is None else (of_bias, of_bias_sigma)
    given = (g, x, *source.tensors, source.of_bias)
    sizes = (batch, inputs, outputs, source.draws)
    options = {"HAS_BIAS": bias is not None, **source.options(g)}
    with _on(g):
        kernels().weight_gradients[_blocks(outputs, BLOCK_Q), _blocks(inputs, BLOCK_P)](
            of_mean, of_sigma, *biases, *given, *sizes, **options
        )
    return of_mean, of_bias, of_sigma, of_bias_sigma


class _Source:
    """The tensors that the kernels read ε_w and ε_b from; any tensor fills an unused place."""

    def __init__(self, noise: KernelNoise) -> None:
        self.kind, self.per_row, self.draws = 1, False, 1
        if isinstance(noise, CounterNoise):
            self.tensors = (noise.seed, noise.seed, noise.seed)
            self.of_bias = noise.seed if noise.bias is None else noise.bias
        else:
            self.kind, self.per_row = 0, noise.rows is not None
            flat = [t.reshape(-1, t.shape[-1]).contiguous() for t in (noise.input, noise.output)]
            self.draws = len(flat[0])
            self.tensors = (flat[0], flat[1], flat[1])
            self.of_bias = flat[1]
        self.device = self.tensors[0].device

    def options(self, batch: Tensor) -> dict[str, Any]:
        """Return a kernel's constants for a batch (B, …); products are as precise as PyTorch's."""
        language: Any = kernels().tl
        rounded = language.bfloat16 if batch.dtype == torch.bfloat16 else language.float32
        exact = torch.get_float32_matmul_precision() == "highest"
        return {
            "KIND": self.kind,
            "ROWS": self.per_row,
            "ROUND": rounded,
            "DOT": rounded if self.device.type == "cuda" else language.float32,
            "PRECISION": "ieee" if exact else "tf32",
            "BB": 16 if len(batch) <= 16 else 32,
            "BQ": BLOCK_Q,
            "BP": BLOCK_P,
        }


def _blocks(size: int, block: int) -> int:
    return -(-size // block)


def _on(tensor: Tensor) -> AbstractContextManager[object]:
    """Make the tensor's device the current one, which Triton launches kernels on."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
