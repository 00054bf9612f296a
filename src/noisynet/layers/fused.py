"""The noisy linear layer on a GPU, in Triton: fewer passes over σ, and noise that is not stored.

How it fits what a draw promises. A `Draw` stays plain tensors: factorised noise is p + q numbers,
tiny beside the p × q weight, so kernels read f(ε_i) and f(ε_j) as they were drawn and make their
product where the weight is read. Independent noise that is held is stored too, for a draw can be
indexed, saved and sent. A fresh draw of independent noise belongs to one forward and nobody keeps
it: there the layer draws one seed (`CounterNoise`), each kernel makes the normals it needs from a
counter, and the backward makes the same ones again: 8 bytes for p·q numbers. Code that asks for
the values gets them built. Such a draw has other numbers than PyTorch draws from the same
generator, so a run on a GPU that has no Triton says it, once.

Which way computes: up to `FUSED_UP_TO` rows of a batch, the weights are read once, inside the
product, in parts that are added in a fixed order; more rows build the noisy weight in one pass and
leave the products to PyTorch. Draws per row of more rows stay with plain operations, and so does
all that `machinery.is_traced` names, and what is not float32 or bfloat16. The bounds were not
measured on a GPU yet; benchmarks/gpu/run.sh does it.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.nn import functional

from . import factorised, independent
from .forms import SMALL_WEIGHT
from .kinds import FactorisedNoise, LinearNoise, standard_normals
from .launch import (
    CounterNoise,
    KernelNoise,
    bias_noise,
    combine,
    input_gradient,
    product,
    weight_gradients,
)
from .machinery import autocast_dtype, is_traced

FUSED_UP_TO = 64
"""Rows of a batch up to which the products themselves are kernels of ours."""

DTYPES = (torch.float32, torch.bfloat16)


class _Settings:
    allowed = True
    interpreted = False


_settings = _Settings()


@contextmanager
def plain_operations() -> Iterator[None]:
    """Leave the kernels alone inside, for comparisons."""
    former, _settings.allowed = _settings.allowed, False
    try:
        yield
    finally:
        _settings.allowed = former


@contextmanager
def interpreted() -> Iterator[None]:
    """Take tensors of the CPU too inside, for Triton's interpreter (TRITON_INTERPRET=1)."""
    _settings.interpreted = True
    try:
        yield
    finally:
        _settings.interpreted = False


@functools.cache
def is_installed() -> bool:
    """Tell whether Triton can be imported."""
    return importlib.util.find_spec("triton") is not None


@functools.cache
def _is_able(device: torch.device) -> bool:
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


def _may_run(weight: Tensor) -> bool:
    """Tell whether a weight's size, dtype and device are for the kernels."""
    if not (weight.is_cuda or _settings.interpreted) or not _settings.allowed:
        return False
    if torch.compiler.is_compiling():
        return False
    if not SMALL_WEIGHT < weight.numel() < 2**31 or weight.dtype not in DTYPES:
        return False
    return _settings.interpreted or _is_able(weight.device)


def draw_by_counter(weight: Tensor, *, bias: bool) -> CounterNoise | None:
    """Draw independent noise for a weight (q, p) as a seed; None where no kernel would use it."""
    if not _may_run(weight) or is_traced(weight):
        return None
    if not is_installed():
        _say_that_numbers_differ()
        return None
    # On the device: nothing waits for it, and a graph draws anew at each replay.
    seed = torch.randint(2**63 - 1, (1,), device=weight.device)
    drawn = None
    if bias:
        drawn = standard_normals(weight.shape[:1], weight.device, weight.dtype, None)
    return CounterNoise(seed, weight.shape, drawn, weight.dtype)


@functools.cache
def _say_that_numbers_differ() -> None:
    warnings.warn(
        "Triton is not installed: fresh independent noise is drawn and stored by PyTorch, from the "
        "same distribution, with other numbers for the same seed",
        stacklevel=2,
    )


def takes(
    noise: LinearNoise,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
) -> TypeGuard[KernelNoise]:
    """Tell whether the kernels compute this; they equal the plain operations but for rounding."""
    if not (input.is_cuda or _settings.interpreted):
        return False
    if not isinstance(noise, FactorisedNoise | CounterNoise) or input.numel() == 0:
        return False
    if not _may_run(weight) or not is_installed():
        return False
    if noise.rows is not None and input.numel() // weight.shape[-1] > FUSED_UP_TO:
        return False
    parameters = (weight, bias, weight_sigma, bias_sigma)
    if is_traced(input, *parameters, noise.bias_noise()):
        return False
    cast = autocast_dtype(input)
    return (cast in DTYPES if cast is not None else input.dtype == weight.dtype) and all(
        t.dtype == weight.dtype and t.is_contiguous() for t in parameters if t is not None
    )


def apply(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: KernelNoise,
) -> Tensor:
    """Apply the layer as `noisy_linear` does, where `takes` said yes."""
    dtype = autocast_dtype(input)
    given = input if dtype is None else input.to(dtype)
    return _Fused.apply(given, weight, bias, weight_sigma, bias_sigma, noise)


class _Fused(torch.autograd.Function):
    """The layer by kernels, forward and backward."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        weight_sigma: Tensor,
        bias_sigma: Tensor | None,
        noise: KernelNoise,
    ) -> Tensor:
        ctx.noise = noise
        ctx.save_for_backward(input, weight, bias, weight_sigma, bias_sigma)
        x = _as_matrix(input)
        if len(x) <= FUSED_UP_TO:
            output = product(x, weight, bias, weight_sigma, bias_sigma, noise)
        else:
            noisy_bias = None
            if bias is not None and bias_sigma is not None:
                noisy_bias = torch.addcmul(bias, bias_sigma, bias_noise(noise)).to(x.dtype)
            noisy_weight = combine(weight, weight_sigma, noise, weight.shape, x.dtype)
            output = functional.linear(x, noisy_weight, noisy_bias)
        return output.reshape(*input.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (grad_output,) = gradients
        if torch.is_grad_enabled():
            return _differentiable(ctx, grad_output)
        input, weight, bias, weight_sigma, _ = ctx.saved_tensors
        wants, noise = ctx.needs_input_grad, ctx.noise
        g, x = _as_matrix(grad_output), _as_matrix(input)
        fused = len(x) <= FUSED_UP_TO
        grad_input = None
        if wants[0] and fused:
            grad_input = input_gradient(g, weight, weight_sigma, noise)
        elif wants[0]:
            grad_input = g @ combine(weight, weight_sigma, noise, weight.shape, g.dtype)
        found: tuple[Tensor | None, ...] = (None,) * 4
        if any(wants[1:5]) and fused:
            found = weight_gradients(g, x, weight, bias, noise)
        elif any(wants[1:5]):
            found = _by_products(g, x, weight, bias, noise)
        if grad_input is not None:
            grad_input = grad_input.reshape(input.shape)
        parameters = (
            gradient if wanted else None for gradient, wanted in zip(found, wants[1:5], strict=True)
        )
        return grad_input, *parameters, None


def _as_matrix(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1, tensor.shape[-1]).contiguous()


def _by_products(
    g: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, noise: KernelNoise
) -> tuple[Tensor | None, ...]:
    """Give ∂ of μ_w, μ_b, σ_w and σ_b for many rows: a product, and one pass of ∂σ over ∂μ."""
    of_mean = (g.mT @ x).to(weight.dtype)
    of_sigma = combine(None, of_mean, noise, weight.shape, weight.dtype)
    if bias is None:
        return of_mean, None, of_sigma, None
    of_bias = g.sum(0).to(bias.dtype)
    return of_mean, of_bias, of_sigma, of_bias * bias_noise(noise)


def _differentiable(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    """Give gradients that can be derived once more, by plain operations."""
    tensors, noise = ctx.saved_tensors, ctx.noise
    input, *parameters = tensors
    weight, bias, weight_sigma, bias_sigma = parameters
    wanted = [n for n, wants in enumerate(ctx.needs_input_grad) if wants]
    with torch.autocast(input.device.type, input.dtype, enabled=input.dtype != weight.dtype):
        if isinstance(noise, CounterNoise):
            y = independent.shared(input, weight, bias, weight_sigma, bias_sigma, noise)
        else:
            form = factorised.one_product if noise.rows is None else factorised.two_products
            y = form(input, weight, bias, weight_sigma, bias_sigma, noise)
    gradients = torch.autograd.grad(y, [tensors[n] for n in wanted], grad_output, create_graph=True)
    found: list[Tensor | None] = [None] * 6
    for n, gradient in zip(wanted, gradients, strict=True):
        found[n] = gradient
    return tuple(found)
