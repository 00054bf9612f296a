"""Noisy layers as pure functions of (input, μ, σ, noise): what noisynet computes.

Everything follows arXiv 1706.10295, §3: y = (μ_w + σ_w ⊙ ε_w) x + μ_b + σ_b ⊙ ε_b (eq. 9). Nothing
keeps state: what the forward saw is what the backward uses, whatever is drawn in between.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .kernels import factorised, fused, independent
from .noise import FactorisedNoise, IndependentNoise, LinearNoise, WeightNoise


def noisy_linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: LinearNoise,
) -> Tensor:
    """Apply a noisy linear layer.

    Shapes: input (…, p) for a shared draw, (…, rows, p) for one draw per row; weight and
    weight_sigma (q, p); bias and bias_sigma (q,), both or neither; returns (…, q). Raises
    ValueError where the input's features or rows do not fit.
    """
    check_features(input, weight.shape[-1])
    rows = noise.rows
    if rows is not None:
        check_rows_of_input(input, rows, features=1)
    if fused.takes(noise, input, weight, bias, weight_sigma, bias_sigma):
        return fused.apply(input, weight, bias, weight_sigma, bias_sigma, noise)
    if isinstance(noise, FactorisedNoise):
        apply = factorised.shared if rows is None else factorised.two_products
        return apply(input, weight, bias, weight_sigma, bias_sigma, noise)
    if isinstance(noise, IndependentNoise):
        apply = independent.shared if rows is None else independent.rows
        return apply(input, weight, bias, weight_sigma, bias_sigma, noise)
    return independent.reparameterised(input, weight, bias, weight_sigma, bias_sigma, noise.normals)


def noisy_parameters(
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: WeightNoise,
) -> tuple[Tensor, Tensor | None]:
    """Build μ + σ ⊙ ε for weight (…, q, p) and bias (…, q); the bias is None without one."""
    noisy_weight = torch.addcmul(weight, weight_sigma, noise.weight_noise())
    if bias is None or bias_sigma is None:
        return noisy_weight, None
    bias_noise = noise.bias_noise()
    assert bias_noise is not None, "a layer with bias draws noise for it"
    return noisy_weight, torch.addcmul(bias, bias_sigma, bias_noise)


def check_features(input: Tensor, features: int) -> None:
    """Raise ValueError unless the input is (…, features)."""
    if input.ndim == 0 or input.shape[-1] != features:
        raise ValueError(
            f"input: got shape {tuple(input.shape)}, expected (…, {features}): {features} features"
        )


def check_rows_of_input(input: Tensor, rows: tuple[int, ...] | None, *, features: int) -> None:
    """Raise ValueError unless the dimensions before the last `features` ones end with `rows`."""
    if rows is None:
        return
    leading, rest = input.shape[: input.ndim - features], input.shape[input.ndim - features :]
    if leading[-len(rows) :] != rows:
        wanted = ", ".join(str(size) for size in (*rows, *rest))
        raise ValueError(
            f"input: got shape {tuple(input.shape)}, expected (…, {wanted}): the noise in force "
            f"is one draw for each of {', '.join(map(str, rows))} rows"
        )
