"""Noisy linear layers as pure functions of (input, μ, σ, draw), with their backward.

Everything here follows arXiv 1706.10295, §3: y = (μ_w + σ_w ⊙ ε_w) x + μ_b + σ_b ⊙ ε_b (eq. 9).
Nothing keeps state: what the forward saw is what the backward uses, whatever is drawn in between.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .draw import FactorisedNoise, IndependentNoise, LayerNoise


def noisy_linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: LayerNoise,
) -> Tensor:
    """Apply a noisy linear layer.

    Shapes: input (…, p) for a shared draw, (…, rows, p) for one draw per row; weight and
    weight_sigma (q, p); bias and bias_sigma (q,), both or neither; returns (…, q). Raises
    ValueError where the input's features or rows do not fit.
    """
    _check_input(input, weight, noise)
    if isinstance(noise, IndependentNoise):
        if noise.rows is None:
            noisy_weight, noisy_bias = noisy_parameters(
                weight, bias, weight_sigma, bias_sigma, noise
            )
            return functional.linear(input, noisy_weight, noisy_bias)
        return _independent_rows(input, weight, bias, weight_sigma, bias_sigma, noise)
    if noise.rows is None:
        return _factorised_shared(input, weight, bias, weight_sigma, bias_sigma, noise)
    return _factorised_rows(input, weight, bias, weight_sigma, bias_sigma, noise)


def noisy_parameters(
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: LayerNoise,
) -> tuple[Tensor, Tensor | None]:
    """Build μ + σ ⊙ ε for weight (…, q, p) and bias (…, q); the bias is None without one."""
    noisy_weight = torch.addcmul(weight, weight_sigma, noise.weight_noise())
    if bias is None or bias_sigma is None:
        return noisy_weight, None
    bias_noise = noise.bias_noise()
    assert bias_noise is not None, "a layer with bias draws noise for it"
    return noisy_weight, torch.addcmul(bias, bias_sigma, bias_noise)


def _factorised_rows(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: FactorisedNoise,
) -> Tensor:
    # (σ_w ⊙ f(ε_j) f(ε_i)ᵀ) x = f(ε_j) ⊙ (σ_w (f(ε_i) ⊙ x)): one more product, no p×q noise.
    steady = functional.linear(input, weight, bias)
    noisy = functional.linear(input * noise.input.to(input.dtype), weight_sigma, bias_sigma)
    return torch.addcmul(steady, noisy, noise.output.to(noisy.dtype))


def _independent_rows(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: IndependentNoise,
) -> Tensor:
    noisy_weight, noisy_bias = noisy_parameters(weight, bias, weight_sigma, bias_sigma, noise)
    # Row r has its own matrix: (…, rows, 1, p) @ (rows, p, q) -> (…, rows, 1, q).
    output = torch.matmul(input.unsqueeze(-2), noisy_weight.transpose(-1, -2)).squeeze(-2)
    return output if noisy_bias is None else output + noisy_bias.to(output.dtype)


def _factorised_shared(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: FactorisedNoise,
) -> Tensor:
    device = input.device.type
    compute_dtype = weight.dtype
    # As nn.Linear does it: autocast leaves float64 alone, and without it dtypes must agree.
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    if autocast and input.dtype != torch.float64:
        compute_dtype = torch.get_autocast_dtype(device)
        input = input.to(compute_dtype)
    noisy_bias = None
    if bias is not None and bias_sigma is not None:
        noisy_bias = torch.addcmul(bias, bias_sigma, noise.output)
    output, _ = _FactorisedShared.apply(
        input, weight, weight_sigma, noise.input, noise.output, compute_dtype
    )
    return output if noisy_bias is None else output + noisy_bias.to(output.dtype)


class _FactorisedShared(torch.autograd.Function):
    """(μ_w + σ_w ⊙ f(ε_j) f(ε_i)ᵀ) x for one draw shared by the batch.

    The gradient of σ_w is the gradient of μ_w scaled by rows and columns, so one product serves
    both. The noisy weight is an output only so that the backward finds it again.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        input: Tensor,
        weight: Tensor,
        weight_sigma: Tensor,
        noise_input: Tensor,
        noise_output: Tensor,
        compute_dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        noisy_weight = _factorised_weight(weight, weight_sigma, noise_input, noise_output)
        noisy_weight = noisy_weight.to(compute_dtype)
        return functional.linear(input, noisy_weight), noisy_weight

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        input, weight, weight_sigma, noise_input, noise_output, _ = inputs
        _, noisy_weight = output
        ctx.mark_non_differentiable(noisy_weight)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(input, weight, weight_sigma, noise_input, noise_output, noisy_weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        gradient = gradients[0]
        if gradient is None:
            return (None,) * 6
        input, weight, weight_sigma, noise_input, noise_output, noisy_weight = ctx.saved_tensors
        grad_input = grad_weight = grad_sigma = None
        if ctx.needs_input_grad[0]:
            if torch.is_grad_enabled():
                # A second derivative is wanted: the saved product carries no graph, so redo it.
                noisy_weight = _factorised_weight(weight, weight_sigma, noise_input, noise_output)
            grad_input = gradient @ noisy_weight.to(gradient.dtype)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            rows = gradient.reshape(-1, gradient.shape[-1])
            grad_weight = (rows.mT @ input.reshape(-1, input.shape[-1])).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            assert grad_weight is not None
            grad_sigma = (grad_weight * noise_input).mul(noise_output.unsqueeze(-1))
        if not ctx.needs_input_grad[1]:
            grad_weight = None
        return grad_input, grad_weight, grad_sigma, None, None, None


def _factorised_weight(
    weight: Tensor, weight_sigma: Tensor, noise_input: Tensor, noise_output: Tensor
) -> Tensor:
    return torch.addcmul(weight, weight_sigma * noise_input, noise_output.unsqueeze(-1))


def _check_input(input: Tensor, weight: Tensor, noise: LayerNoise) -> None:
    inputs = weight.shape[-1]
    if input.ndim == 0 or input.shape[-1] != inputs:
        raise ValueError(
            f"input: got shape {tuple(input.shape)}, expected (…, {inputs}): {inputs} features"
        )
    rows = noise.rows
    if rows is not None and input.shape[-1 - len(rows) : -1] != rows:
        wanted = ", ".join(str(size) for size in rows)
        raise ValueError(
            f"input: got shape {tuple(input.shape)}, expected (…, {wanted}, {inputs}): the noise "
            f"in force is one draw for each of {wanted} rows"
        )
