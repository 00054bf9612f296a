"""Noisy networks for PyTorch: learned exploration noise (arXiv 1706.10295)."""

from .diagnostics import mean_sigma, snr
from .layers import (
    Draw,
    NoisyLinear,
    attach,
    denoise,
    draw,
    held,
    hold,
    mean_weights,
    noisify,
    noisy_layers,
    release,
    resample,
    sigma_parameters,
    using,
)

__version__ = "0.1.0"

__all__ = [
    "Draw",
    "NoisyLinear",
    "attach",
    "denoise",
    "draw",
    "held",
    "hold",
    "mean_sigma",
    "mean_weights",
    "noisify",
    "noisy_layers",
    "release",
    "resample",
    "sigma_parameters",
    "snr",
    "using",
]
