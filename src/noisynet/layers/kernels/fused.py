"""A linear layer by Triton's kernels, forward and backward: fewer passes over σ, noise not stored.

A `Draw` consists of plain tensors. Factorised noise is p + q numbers, few next to the p × q weight,
so the kernels read f(ε_i) and f(ε_j) as they were drawn and multiply them where the weight is read.
Independent noise that is held is stored as all its p·q numbers, since a draw can be indexed, saved
and sent. A fresh draw of it is one seed: each kernel generates the normals that it needs from a
counter, and the backward generates the same ones again. Code that reads the values gets them built.

For up to `FUSED_UP_TO` rows of a batch, the weights are read once, inside the product, in parts
that are added in a fixed order. For more rows, the noisy weight is built in one pass, and PyTorch
computes the products.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..weights import Weights
from . import factorised
from .launch import (
    CounterNoise,
    KernelNoise,
    combine,
    input_gradient,
    product,
    weight_gradients,
)
from .tracing import autocast_dtype

FUSED_UP_TO = 64
"""Rows of a batch up to which our kernels compute the products as well."""


def apply(input: Tensor, weights: Weights, noise: KernelNoise) -> Tensor:
    """Apply the layer to (…, p), where `dispatch.is_for_kernels` allows it."""
    dtype = autocast_dtype(input)
    return _Fused.apply(input if dtype is None else input.to(dtype), *weights, noise)


def by_plain_operations(input: Tensor, weights: Weights, noise: KernelNoise) -> Tensor:
    """Apply the layer without the kernels, to the same input, weights and noise."""
    if isinstance(noise, CounterNoise) or noise.rows is None:
        return functional.linear(input, *weights.under(noise))
    return factorised.two_products(input, weights, noise)


class _Fused(torch.autograd.Function):
    """The layer computed by the kernels, forward and backward."""

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
        weights, x = Weights(weight, bias, weight_sigma, bias_sigma), _as_matrix(input)
        if len(x) <= FUSED_UP_TO:
            output = product(x, weights, noise)
        else:
            noisy_bias = weights.bias_under(noise)
            noisy_bias = None if noisy_bias is None else noisy_bias.to(x.dtype)
            noisy_weight = combine(weight, weight_sigma, noise, weight.shape, x.dtype)
            output = functional.linear(x, noisy_weight, noisy_bias)
        return output.reshape(*input.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (grad_output,) = gradients
        if torch.is_grad_enabled():
            return _differentiable(ctx, grad_output)
        input, weight, bias, weight_sigma, bias_sigma = ctx.saved_tensors
        weights = Weights(weight, bias, weight_sigma, bias_sigma)
        wants, noise = ctx.needs_input_grad, ctx.noise
        g, x = _as_matrix(grad_output), _as_matrix(input)
        fused = len(x) <= FUSED_UP_TO
        grad_input = None
        if wants[0] and fused:
            grad_input = input_gradient(g, weights, noise)
        elif wants[0]:
            grad_input = g @ combine(weight, weight_sigma, noise, weight.shape, g.dtype)
        found: tuple[Tensor | None, ...] = (None,) * 4
        if any(wants[1:5]):
            differentiate = weight_gradients if fused else _by_products
            found = differentiate(g, x, weight, bias, noise)
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
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Return the gradients of μ_w, μ_b, σ_w and σ_b for many rows; ∂σ_w is one pass over ∂μ_w."""
    of_mean = (g.mT @ x).to(weight.dtype)
    of_sigma = combine(None, of_mean, noise, weight.shape, weight.dtype)
    bias_noise = noise.bias_noise()
    if bias is None or bias_noise is None:
        return of_mean, None, of_sigma, None
    of_bias = g.sum(0).to(bias.dtype)
    return of_mean, of_bias, of_sigma, of_bias * bias_noise


def _differentiable(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    """Return gradients that can be differentiated again, computed by plain operations."""
    tensors, noise = ctx.saved_tensors, ctx.noise
    input, weights = tensors[0], Weights(*tensors[1:])
    wanted = [n for n, wants in enumerate(ctx.needs_input_grad) if wants]
    autocast = input.dtype != weights.weight.dtype
    with torch.autocast(input.device.type, input.dtype, enabled=autocast):
        y = by_plain_operations(input, weights, noise)
    gradients = torch.autograd.grad(y, [tensors[n] for n in wanted], grad_output, create_graph=True)
    found: list[Tensor | None] = [None] * 6
    for n, gradient in zip(wanted, gradients, strict=True):
        found[n] = gradient
    return tuple(found)
