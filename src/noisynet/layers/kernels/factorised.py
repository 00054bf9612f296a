"""Factorised noise in a linear layer: one draw for the batch, or one per row.

ε_w = f(ε_j) f(ε_i)ᵀ has rank one, so y = μ_w x + f(ε_j) ⊙ (σ_w (f(ε_i) ⊙ x)) + … needs no p×q
noise. With one draw for the batch, the same matrix can be built once and used as a plain weight,
and the gradient of σ_w is that of μ_w scaled by rows and columns. All forms are the same function;
which of them computes it is settled by forms.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from . import scratch
from .dispatch import cheapest_form
from ..noise import FactorisedNoise
from .tracing import autocast_dtype, is_traced


def shared(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: FactorisedNoise,
) -> Tensor:
    """Apply the layer under one draw for the whole batch, in the cheaper form."""
    learns = torch.is_grad_enabled() and (
        input.requires_grad or weight.requires_grad or weight_sigma.requires_grad
    )
    apply = FORMS[cheapest_form(input, weight, learns=learns)]
    return apply(input, weight, bias, weight_sigma, bias_sigma, noise)


def two_products(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: FactorisedNoise,
) -> Tensor:
    """Apply μ and σ in a product each: for one draw per row, or one that all rows share."""
    noise_input, noise_output = noise.input, noise.output
    if input.dtype != noise_input.dtype:
        noise_input = noise_input.to(input.dtype)
    steady = functional.linear(input, weight, bias)
    noisy = functional.linear(input * noise_input, weight_sigma, bias_sigma)
    if noisy.dtype != noise_output.dtype:
        noise_output = noise_output.to(noisy.dtype)
    return torch.addcmul(steady, noisy, noise_output)


def one_product(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: FactorisedNoise,
) -> Tensor:
    """Build μ + σ ⊙ ε_w with plain operations, and apply it in one product."""
    noisy_weight = torch.addcmul(weight, weight_sigma, noise.weight_noise())
    return functional.linear(input, noisy_weight, _noisy_bias(bias, bias_sigma, noise))


def _noisy_bias(
    bias: Tensor | None, bias_sigma: Tensor | None, noise: FactorisedNoise
) -> Tensor | None:
    if bias is None or bias_sigma is None:
        return None
    return torch.addcmul(bias, bias_sigma, noise.output)


def one_product_from_scratch(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: FactorisedNoise,
) -> Tensor:
    """Build μ + σ ⊙ ε in scratch memory, with a backward of its own; the same as `one_product`."""
    if is_traced(input, weight, bias, weight_sigma, bias_sigma):
        return _by_factors(input, weight, bias, weight_sigma, bias_sigma, noise)
    dtype = autocast_dtype(input)
    return _OneProduct.apply(
        input if dtype is None else input.to(dtype),
        weight,
        bias,
        weight_sigma,
        bias_sigma,
        noise.input,
        noise.output,
        weight.dtype if dtype is None else dtype,
    )


def _by_factors(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: FactorisedNoise,
) -> Tensor:
    """Build μ + σ ⊙ ε with plain operations whose backward keeps the factors, and no ε_w."""
    noisy_weight = torch.addcmul(weight, weight_sigma * noise.input, noise.output.unsqueeze(-1))
    return functional.linear(input, noisy_weight, _noisy_bias(bias, bias_sigma, noise))


FORMS = {
    "two products": two_products,
    "one product": one_product,
    "one product from scratch": one_product_from_scratch,
}


class _OneProduct(torch.autograd.Function):
    """Build μ + σ ⊙ ε in scratch memory and use it as a plain weight.

    The backward of the last forward finds it there still; another one builds it again.
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
        # The weights are kept only where their gradient's way leads back through them.
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
        wants = ctx.needs_input_grad
        grad_input = grad_weight = grad_sigma = grad_bias = grad_bias_sigma = None
        if wants[0]:
            if torch.is_grad_enabled():
                # A second derivative is wanted, and needs the way from μ and σ.
                noisy_weight = torch.addcmul(
                    weight, weight_sigma * noise_input, noise_output.unsqueeze(-1)
                ).to(ctx.dtype)
            else:
                noisy_weight = scratch.left_by(ctx.owner, weight.shape, ctx.dtype)
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
                again = torch.is_grad_enabled()
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
    """Build μ + σ ⊙ f(ε_j) f(ε_i)ᵀ in scratch memory that is `owner`'s."""
    column = noise_output.unsqueeze(-1)
    built = scratch.borrow(weight.shape, weight.dtype, weight.device, owner)
    torch.mul(weight_sigma, noise_input, out=built)
    torch.addcmul(weight, built, column, out=built)
    if dtype == weight.dtype:
        return built
    return scratch.borrow(weight.shape, dtype, weight.device, owner).copy_(built)
