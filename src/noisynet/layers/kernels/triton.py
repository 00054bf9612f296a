"""The Triton kernels of the noisy linear layer, with the noise made where the weight is read.

Shapes: x (B, p), g (B, q), μ and σ (q, p). Every kernel reads ε_w tile by tile from one of

- FACTORISED: f(ε_i) and f(ε_j), (p,) and (q,), as they were drawn;
- COUNTER: four standard normals for each counter of Philox-4x32-10 (Salmon et al., 2011), with the
  seed as its key: ε_w[j, 4c + k] is the k-th of counter j · ⌈p/4⌉ + c. None of them is stored, and
  the backward generates the same values again.

With ROWS, the noise is factorised and row b has draw b mod R: (R, p) and (R, q). Sums are in
float32. Operands of a product are rounded to ROUND, and multiplied in DOT (the interpreter cannot
multiply bfloat16). There is no atomic addition, so a run repeats bit for bit.
"""

# Triton may be missing where types are checked, and its kernels are typed by its own rules.
# pyright: basic
# pyright: reportMissingImports=false, reportMissingParameterType=false
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

FACTORISED = tl.constexpr(0)
COUNTER = tl.constexpr(1)


@triton.jit
def _load(start, row, column, rows, columns):
    """Read a tile of a (rows, columns) matrix in float32, 0 outside of it."""
    inside = (row[:, None] < rows) & (column[None, :] < columns)
    place = row[:, None] * columns + column[None, :]
    return tl.load(start + place, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _store(start, tile, row, column, rows, columns):
    inside = (row[:, None] < rows) & (column[None, :] < columns)
    place = row[:, None] * columns + column[None, :]
    tl.store(start + place, tile.to(start.dtype.element_ty), mask=inside)


@triton.jit
def _noise(
    f_input, f_output, seed, j, first, P, Q,
    KIND: tl.constexpr, BQ: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Make ε_w for the rows j and the BP columns from `first` on."""
    if KIND == FACTORISED:
        i = first + tl.arange(0, BP)
        of_input = tl.load(f_input + i, mask=i < P, other=0.0).to(tl.float32)
        of_output = tl.load(f_output + j, mask=j < Q, other=0.0).to(tl.float32)
        tile = of_output[:, None] * of_input[None, :]
    else:
        c = first // 4 + tl.arange(0, BP // 4)
        counter = j[:, None] * ((P + 3) // 4) + c[None, :]
        n0, n1, n2, n3 = tl.randn4x(tl.load(seed), counter)
        # (BQ, BP/4, 2, 2), whose last two dimensions read in order give 0, 1, 2, 3.
        tile = tl.reshape(tl.join(tl.join(n0, n2), tl.join(n1, n3)), (BQ, BP))
    return tile


@triton.jit
def _dot(a, b, total, ROUND: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr):
    return tl.dot(a.to(ROUND).to(DOT), b.to(ROUND).to(DOT), total, input_precision=PRECISION)


@triton.jit
def combine(
    out, mean, scale, f_input, f_output, seed, P, Q,
    HAS_MEAN: tl.constexpr, HAS_SCALE: tl.constexpr, KIND: tl.constexpr,
    BQ: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Write mean + scale ⊙ ε_w: the noisy weight, ∂σ from ∂μ, or ε_w itself, (q, p)."""
    j, first = tl.program_id(0) * BQ + tl.arange(0, BQ), tl.program_id(1) * BP
    i = first + tl.arange(0, BP)
    tile = _noise(f_input, f_output, seed, j, first, P, Q, KIND, BQ, BP)
    if HAS_SCALE:
        tile = tile * _load(scale, j, i, Q, P)
    if HAS_MEAN:
        tile = tile + _load(mean, j, i, Q, P)
    _store(out, tile, j, i, Q, P)


@triton.jit
def product(
    steady, noisy, x, mean, sigma, f_input, f_output, seed, B, P, Q, R, CHUNK,
    KIND: tl.constexpr, ROWS: tl.constexpr,
    ROUND: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    BB: tl.constexpr, BQ: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Sum x wᵀ over one chunk of the inputs: part s of (S, B, q), in float32.

    With ROWS, `steady` gets the parts of x μᵀ and `noisy` those of (x ⊙ f(ε_i)) σᵀ.
    """
    b = tl.program_id(0) * BB + tl.arange(0, BB)
    j = tl.program_id(1) * BQ + tl.arange(0, BQ)
    part = tl.program_id(2)
    total = tl.zeros((BB, BQ), dtype=tl.float32)
    total_noisy = tl.zeros((BB, BQ), dtype=tl.float32)
    for step in range(0, CHUNK, BP):
        first = part * CHUNK + step
        i = first + tl.arange(0, BP)
        values = _load(x, b, i, B, P)
        weight, deviation = _load(mean, j, i, Q, P), _load(sigma, j, i, Q, P)
        if ROWS:
            scaled = values * _load(f_input, b % R, i, R, P)
            total_noisy = _dot(scaled, tl.trans(deviation), total_noisy, ROUND, DOT, PRECISION)
        else:
            weight += deviation * _noise(f_input, f_output, seed, j, first, P, Q, KIND, BQ, BP)
        total = _dot(values, tl.trans(weight), total, ROUND, DOT, PRECISION)
    _store(steady + part * B * Q, total, b, j, B, Q)
    if ROWS:
        _store(noisy + part * B * Q, total_noisy, b, j, B, Q)


@triton.jit
def finish(
    y, steady, noisy, bias, bias_sigma, noise_bias, B, Q, R, PARTS,
    ROWS: tl.constexpr, HAS_BIAS: tl.constexpr, BB: tl.constexpr, BQ: tl.constexpr,
):  # fmt: skip
    """Add the parts of a product in their order, and the noisy bias: y (B, q)."""
    b = tl.program_id(0) * BB + tl.arange(0, BB)
    j = tl.program_id(1) * BQ + tl.arange(0, BQ)
    total = tl.zeros((BB, BQ), dtype=tl.float32)
    total_noisy = tl.zeros((BB, BQ), dtype=tl.float32)
    for part in range(PARTS):
        total += _load(steady + part * B * Q, b, j, B, Q)
        if ROWS:
            total_noisy += _load(noisy + part * B * Q, b, j, B, Q)
    inside = j < Q
    if HAS_BIAS:
        total += tl.load(bias + j, mask=inside, other=0.0).to(tl.float32)[None, :]
        deviation = tl.load(bias_sigma + j, mask=inside, other=0.0).to(tl.float32)
        if ROWS:
            total_noisy += deviation[None, :]
        else:
            of_bias = tl.load(noise_bias + j, mask=inside, other=0.0).to(tl.float32)
            total += (deviation * of_bias)[None, :]
    if ROWS:
        total += total_noisy * _load(noise_bias, b % R, j, R, Q)
    _store(y, total, b, j, B, Q)


@triton.jit
def input_gradient(
    out, g, mean, sigma, f_input, f_output, seed, B, P, Q, R,
    KIND: tl.constexpr, ROWS: tl.constexpr,
    ROUND: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    BB: tl.constexpr, BQ: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Write ∂x = g w; with ROWS g μ + ((g ⊙ f(ε_j)) σ) ⊙ f(ε_i)."""
    b = tl.program_id(0) * BB + tl.arange(0, BB)
    first = tl.program_id(1) * BP
    i = first + tl.arange(0, BP)
    total = tl.zeros((BB, BP), dtype=tl.float32)
    total_noisy = tl.zeros((BB, BP), dtype=tl.float32)
    for start in range(0, Q, BQ):
        j = start + tl.arange(0, BQ)
        gradient = _load(g, b, j, B, Q)
        weight, deviation = _load(mean, j, i, Q, P), _load(sigma, j, i, Q, P)
        if ROWS:
            scaled = gradient * _load(f_output, b % R, j, R, Q)
            total_noisy = _dot(scaled, deviation, total_noisy, ROUND, DOT, PRECISION)
        else:
            weight += deviation * _noise(f_input, f_output, seed, j, first, P, Q, KIND, BQ, BP)
        total = _dot(gradient, weight, total, ROUND, DOT, PRECISION)
    if ROWS:
        total += total_noisy * _load(f_input, b % R, i, R, P)
    _store(out, total, b, i, B, P)


@triton.jit
def weight_gradients(
    of_mean, of_sigma, of_bias, of_bias_sigma, g, x, f_input, f_output, seed, noise_bias,
    B, P, Q, R,
    KIND: tl.constexpr, ROWS: tl.constexpr, HAS_BIAS: tl.constexpr,
    ROUND: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    BB: tl.constexpr, BQ: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Write ∂μ = gᵀ x, ∂σ = ε_w ⊙ ∂μ and the biases' sums.

    With ROWS, ∂σ = (g ⊙ f(ε_j))ᵀ (x ⊙ f(ε_i)).
    """
    j = tl.program_id(0) * BQ + tl.arange(0, BQ)
    first = tl.program_id(1) * BP
    i = first + tl.arange(0, BP)
    total = tl.zeros((BQ, BP), dtype=tl.float32)
    total_noisy = tl.zeros((BQ, BP), dtype=tl.float32)
    bias = tl.zeros((BQ,), dtype=tl.float32)
    bias_noisy = tl.zeros((BQ,), dtype=tl.float32)
    for start in range(0, B, BB):
        b = start + tl.arange(0, BB)
        gradient, values = _load(g, b, j, B, Q), _load(x, b, i, B, P)
        bias += tl.sum(gradient, axis=0)
        if ROWS:
            scaled = gradient * _load(f_output, b % R, j, R, Q)
            bias_noisy += tl.sum(scaled, axis=0)
            inputs = values * _load(f_input, b % R, i, R, P)
            total_noisy = _dot(tl.trans(scaled), inputs, total_noisy, ROUND, DOT, PRECISION)
        total = _dot(tl.trans(gradient), values, total, ROUND, DOT, PRECISION)
    _store(of_mean, total, j, i, Q, P)
    if not ROWS:
        total_noisy = total * _noise(f_input, f_output, seed, j, first, P, Q, KIND, BQ, BP)
    _store(of_sigma, total_noisy, j, i, Q, P)
    if HAS_BIAS:  # noqa: SIM102  # what is constant and what is not stay apart
        if tl.program_id(1) == 0:
            inside = j < Q
            if not ROWS:
                bias_noisy = bias * tl.load(noise_bias + j, mask=inside, other=0.0).to(tl.float32)
            element = of_bias.dtype.element_ty
            tl.store(of_bias + j, bias.to(element), mask=inside)
            tl.store(of_bias_sigma + j, bias_noisy.to(element), mask=inside)
