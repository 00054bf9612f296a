"""The initial μ and σ of noisy layers, by the name of where they come from."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

from .draw import NoiseKind

PAPER_SIGMA0: dict[str, float] = {"factorised": 0.5, "independent": 0.017}


def check_sigma0(sigma0: float | None) -> None:
    """Raise ValueError unless `sigma0` is None or a finite number of at least 0."""
    if sigma0 is not None and not (math.isfinite(sigma0) and sigma0 >= 0):
        raise ValueError(f"sigma0: got {sigma0}, expected a finite number of at least 0, or None")


def initial_sigma(noise: NoiseKind, sigma0: float | None, inputs: int) -> float:
    """Give the initial σ of weights and biases alike (arXiv 1706.10295, §3.2).

    Factorised: σ0/√p with σ0 = 0.5; independent: σ0 itself, 0.017. p counts the layer's inputs,
    for the bias too.
    """
    value = PAPER_SIGMA0[noise] if sigma0 is None else sigma0
    return value / math.sqrt(inputs) if noise == "factorised" else value


def _paper_mean_bound(noise: NoiseKind, inputs: int) -> float:
    return math.sqrt(1 / inputs) if noise == "factorised" else math.sqrt(3 / inputs)


MEAN_BOUNDS: dict[str, Callable[[NoiseKind, int], float]] = {
    "paper": _paper_mean_bound,
}


def check_init(init: str) -> None:
    """Raise ValueError for a preset of initial values that does not exist."""
    if init not in MEAN_BOUNDS:
        raise ValueError(f"init: got {init!r}, expected one of {', '.join(sorted(MEAN_BOUNDS))}")


def initialise_means(
    weight: Tensor, bias: Tensor | None, noise: NoiseKind, inputs: int, init: str
) -> None:
    """Draw μ of weight and bias in place, uniform within ±1/√p (factorised) or ±√(3/p)."""
    bound = MEAN_BOUNDS[init](noise, inputs)
    nn.init.uniform_(weight, -bound, bound)
    if bias is not None:
        nn.init.uniform_(bias, -bound, bound)


def initialise_sigmas(
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: NoiseKind,
    sigma0: float | None,
    inputs: int,
) -> None:
    """Set σ of weight and bias in place to its initial constant."""
    value = initial_sigma(noise, sigma0, inputs)
    nn.init.constant_(weight_sigma, value)
    if bias_sigma is not None:
        nn.init.constant_(bias_sigma, value)
