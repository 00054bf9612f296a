"""Independent noise that is fresh for each row, drawn at the outputs of a linear layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..noise import OutputNoise
from ..weights import Weights
from . import scratch
from .tracing import autocast_dtype, needs_plain_operations


def at_outputs(input: Tensor, weights: Weights, noise: OutputNoise) -> Tensor:
    """Apply a fresh draw per row: mean + deviation ⊙ ζ, with ζ standard normal, shape (…, q).

    mean = μ_w x + μ_b and deviation² = σ_w² x² + σ_b², elementwise. The outputs have the same
    distribution as with a separate matrix of independent noise for each row
    (arXiv 1506.02557, eq. 6).
    """
    mean = functional.linear(input, weights.weight, weights.bias)
    sigmas = (weights.weight_sigma, weights.bias_sigma)
    normals = noise.normals.to(mean.dtype)
    if mean.dtype == torch.float16:
        # Squares leave its range: x² overflows from 256 on, and σ² of a small σ is 0.
        bias_sigma = None if sigmas[1] is None else sigmas[1].float()
        with torch.autocast(input.device.type, enabled=False):
            deviation = _deviation(input.float(), sigmas[0].float(), bias_sigma)
        return mean + (deviation * noise.normals).to(mean.dtype)
    if needs_plain_operations(input, *sigmas):
        return torch.addcmul(mean, _deviation(input, *sigmas), normals)
    dtype = autocast_dtype(input)
    if dtype is not None:
        input = input.to(dtype)
    return mean + _Noise.apply(input, *sigmas, normals)


def _deviation(input: Tensor, weight_sigma: Tensor, bias_sigma: Tensor | None) -> Tensor:
    """Return √(σ_w² x² + σ_b²), with a gradient of 0 where it is 0."""
    bias_variance = None if bias_sigma is None else bias_sigma.square().to(input.dtype)
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
            # A second derivative is wanted, and depends on x and σ.
            deviation = _deviation(input, weight_sigma.to(input.dtype), bias_sigma)
        positive = deviation > 0
        safe = torch.where(positive, deviation, torch.ones_like(deviation))
        h = torch.where(positive, grad_output * normals / safe, torch.zeros_like(grad_output))
        grad_input = grad_sigma = grad_bias_sigma = None
        if wants[0]:
            if again:
                variance_weight = weight_sigma.to(h.dtype).square()
            else:
                variance_weight = scratch.still_held_by(ctx.owner, weight_sigma.shape, h.dtype)
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
