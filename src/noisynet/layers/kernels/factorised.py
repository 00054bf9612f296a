"""Linear layers with factorised noise, at a lower cost than eq. 9 computed directly.

ε_w = f(ε_j) f(ε_i)ᵀ has rank one, so y = μ_w x + f(ε_j) ⊙ (σ_w (f(ε_i) ⊙ x)) + … needs no p × q
noise. With one draw for the batch, the noisy weight can be built in memory that is reused, and the
gradient of σ_w is that of μ_w scaled by rows and columns.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..noise import FactorisedNoise
from ..weights import Weights
from . import scratch
from .tracing import autocast_dtype, needs_plain_operations


def two_products(input: Tensor, weights: Weights, noise: FactorisedNoise) -> Tensor:
    """Apply the layer by one product with μ and one with σ, for any draw: per row or shared."""
    weight, bias, weight_sigma, bias_sigma = weights
    noise_input, noise_output = noise.input, noise.output
    if noise.batch_first and noise.rows is not None and input.ndim > 2:
        # (rows, p) -> (rows, 1, …, p): all dimensions but the first one share a row's noise.
        # All sizes are explicit, since -1 would be ambiguous without rows.
        shared = (noise_input.shape[0], *(1 for _ in input.shape[1:-1]))
        noise_input = noise_input.reshape(*shared, noise_input.shape[-1])
        noise_output = noise_output.reshape(*shared, noise_output.shape[-1])
    if input.dtype != noise_input.dtype:
        noise_input = noise_input.to(input.dtype)
    steady = functional.linear(input, weight, bias)
    noisy = functional.linear(input * noise_input, weight_sigma, bias_sigma)
    if noisy.dtype != noise_output.dtype:
        noise_output = noise_output.to(noisy.dtype)
    return torch.addcmul(steady, noisy, noise_output)


def from_scratch(input: Tensor, weights: Weights, noise: FactorisedNoise) -> Tensor:
    """Build μ + σ ⊙ ε in scratch memory, and apply it as a plain weight."""
    if needs_plain_operations(input, *weights):
        return functional.linear(input, *weights.by_factors(noise))
    dtype = autocast_dtype(input)
    return _FromScratch.apply(
        input if dtype is None else input.to(dtype),
        *weights,
        noise.input,
        noise.output,
        weights.weight.dtype if dtype is None else dtype,
    )


class _FromScratch(torch.autograd.Function):
    """μ + σ ⊙ ε, built in scratch memory and used as a plain weight.

    A backward reuses that weight if the scratch memory still holds it; otherwise it builds it
    again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        weight_sigma: Tensor,
        bias_sigma: Tensor | None,
        noise_input: Tensor,
        noise_output: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.dtype, ctx.owner = dtype, object()
        ctx.has_bias = bias is not None
        # The weights are saved only if the input needs a gradient, which depends on them.
        kept = (weight, weight_sigma) if ctx.needs_input_grad[0] else (None, None)
        ctx.save_for_backward(input, *kept, noise_input, noise_output)
        noisy_weight = _noisy_weight(
            weight, weight_sigma, noise_input, noise_output, dtype, ctx.owner
        )
        if bias is None or bias_sigma is None:
            return functional.linear(input, noisy_weight)
        noisy_bias = torch.addcmul(bias, bias_sigma, noise_output)
        return functional.linear(input, noisy_weight, noisy_bias.to(dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (grad_output,) = gradients
        input, weight, weight_sigma, noise_input, noise_output = ctx.saved_tensors
        wants, again = ctx.needs_input_grad, torch.is_grad_enabled()
        grad_input = grad_weight = grad_sigma = grad_bias = grad_bias_sigma = None
        if wants[0]:
            if again:
                # A second derivative is wanted, and depends on μ and σ.
                noisy_weight = torch.addcmul(
                    weight, weight_sigma * noise_input, noise_output.unsqueeze(-1)
                ).to(ctx.dtype)
            else:
                noisy_weight = scratch.still_held_by(ctx.owner, weight.shape, ctx.dtype)
                if noisy_weight is None:
                    noisy_weight = _noisy_weight(
                        weight, weight_sigma, noise_input, noise_output, ctx.dtype, ctx.owner
                    )
            grad_input = grad_output @ noisy_weight
        flat = grad_output.reshape(-1, grad_output.shape[-1])
        if wants[1] or wants[3]:
            grad_weight = (flat.mT @ input.reshape(-1, input.shape[-1])).to(noise_input.dtype)
            if wants[3]:
                grad_sigma = grad_weight * noise_input
                column = noise_output.unsqueeze(-1)
                grad_sigma = grad_sigma.mul(column) if again else grad_sigma.mul_(column)
        if ctx.has_bias and (wants[2] or wants[4]):
            grad_bias = flat.sum(0).to(noise_output.dtype)
            grad_bias_sigma = grad_bias * noise_output if wants[4] else None
        return (
            grad_input,
            grad_weight if wants[1] else None,
            grad_bias if wants[2] else None,
            grad_sigma,
            grad_bias_sigma,
            None,
            None,
            None,
        )


def _noisy_weight(
    weight: Tensor,
    weight_sigma: Tensor,
    noise_input: Tensor,
    noise_output: Tensor,
    dtype: torch.dtype,
    owner: object,
) -> Tensor:
    """Build μ + σ ⊙ f(ε_j) f(ε_i)ᵀ in scratch memory that `owner` borrows."""
    column = noise_output.unsqueeze(-1)
    built = scratch.borrow(weight.shape, weight.dtype, weight.device, owner)
    torch.mul(weight_sigma, noise_input, out=built)
    torch.addcmul(weight, built, column, out=built)
    if dtype == weight.dtype:
        return built
    return scratch.borrow(weight.shape, dtype, weight.device, owner).copy_(built)
