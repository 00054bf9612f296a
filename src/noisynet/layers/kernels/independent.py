"""Independent noise in a linear layer: a draw for the batch, one per row, or seen at the output."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from . import scratch
from ..noise import IndependentNoise
from .tracing import autocast_dtype, is_traced


def shared(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: IndependentNoise,
) -> Tensor:
    """Apply μ + σ ⊙ ε, one draw for the whole batch."""
    noisy_weight = torch.addcmul(weight, weight_sigma, noise.weight)
    return functional.linear(input, noisy_weight, _noisy_bias(bias, bias_sigma, noise))


def rows(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: IndependentNoise,
) -> Tensor:
    """Apply μ + σ ⊙ ε with a matrix of its own for each row."""
    noisy_weight = torch.addcmul(weight, weight_sigma, noise.weight)
    # (…, rows, 1, p) @ (rows, p, q) -> (…, rows, 1, q)
    output = torch.matmul(input.unsqueeze(-2), noisy_weight.mT).squeeze(-2)
    noisy_bias = _noisy_bias(bias, bias_sigma, noise)
    return output if noisy_bias is None else output + noisy_bias.to(output.dtype)


def _noisy_bias(
    bias: Tensor | None, bias_sigma: Tensor | None, noise: IndependentNoise
) -> Tensor | None:
    if bias is None or bias_sigma is None:
        return None
    assert noise.bias is not None, "a layer with bias draws noise for it"
    return torch.addcmul(bias, bias_sigma, noise.bias)


def reparameterised(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    normals: Tensor,
) -> Tensor:
    """Apply a fresh draw per row: mean + deviation ⊙ ζ, with ζ standard normal, shape (…, q).

    mean = μ_w x + μ_b and deviation² = σ_w² x² + σ_b², elementwise: the distribution that a
    matrix of independent noise for each row has (arXiv 1506.02557, eq. 6).
    """
    mean = functional.linear(input, weight, bias)
    sigmas = (weight_sigma, bias_sigma)
    if is_traced(input, *sigmas):
        return torch.addcmul(mean, _deviation(input, *sigmas), normals.to(mean.dtype))
    dtype = autocast_dtype(input)
    if dtype is not None:
        input = input.to(dtype)
    return mean + _Noise.apply(input, *sigmas, normals.to(mean.dtype))


def _deviation(input: Tensor, weight_sigma: Tensor, bias_sigma: Tensor | None) -> Tensor:
    """Give √(σ_w² x² + σ_b²), with a gradient of 0 where it is 0."""
    bias_variance = None if bias_sigma is None else bias_sigma.square()
    variance = functional.linear(input.square(), weight_sigma.square(), bias_variance)
    positive = variance > 0
    return torch.where(positive, variance, torch.ones_like(variance)).sqrt() * positive


class _Noise(torch.autograd.Function):
    """deviation ⊙ ζ, with deviation² = σ_w² x² + σ_b².

    With h = ∂y ⊙ ζ / deviation, ∂σ_w = σ_w ⊙ hᵀ x², ∂σ_b = σ_b ⊙ Σ h and ∂x = x ⊙ (h σ_w²).
    """

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight_sigma: Tensor, bias_sigma: Tensor | None, normals: Tensor
    ) -> Tensor:
        ctx.owner = object()
        variance_weight = _squared(weight_sigma, input.dtype, ctx.owner)
        variance = functional.linear(input.square(), variance_weight)
        if bias_sigma is not None:
            variance += bias_sigma.square().to(variance.dtype)
        deviation = variance.sqrt_()
        ctx.save_for_backward(input, weight_sigma, bias_sigma, normals, deviation)
        return deviation * normals

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (grad_output,) = gradients
        input, weight_sigma, bias_sigma, normals, deviation = ctx.saved_tensors
        wants = ctx.needs_input_grad
        again = torch.is_grad_enabled()
        if again:
            # A second derivative is wanted, and needs the way from x and σ.
            deviation = _deviation(input, weight_sigma.to(input.dtype), bias_sigma)
        positive = deviation > 0
        safe = torch.where(positive, deviation, torch.ones_like(deviation))
        h = torch.where(positive, grad_output * normals / safe, torch.zeros_like(grad_output))
        grad_input = grad_sigma = grad_bias_sigma = None
        if wants[0]:
            if again:
                variance_weight = weight_sigma.to(h.dtype).square()
            else:
                variance_weight = scratch.left_by(ctx.owner, weight_sigma.shape, h.dtype)
                if variance_weight is None:
                    variance_weight = _squared(weight_sigma, h.dtype, ctx.owner)
            grad_input = input * (h @ variance_weight)
        flat = h.reshape(-1, h.shape[-1])
        if wants[1]:
            squares = input.reshape(-1, input.shape[-1]).square()
            grad_sigma = (flat.mT @ squares).to(weight_sigma.dtype)
            grad_sigma = grad_sigma * weight_sigma if again else grad_sigma.mul_(weight_sigma)
        if wants[2]:
            assert bias_sigma is not None
            grad_bias_sigma = flat.sum(0).to(bias_sigma.dtype) * bias_sigma
        return grad_input, grad_sigma, grad_bias_sigma, None


def _squared(weight_sigma: Tensor, dtype: torch.dtype, owner: object) -> Tensor:
    """Build σ² in scratch memory, in the dtype that the products are computed in."""
    squared = scratch.borrow(weight_sigma.shape, dtype, weight_sigma.device, owner)
    if dtype == weight_sigma.dtype:
        return torch.mul(weight_sigma, weight_sigma, out=squared)
    return squared.copy_(weight_sigma).square_()
