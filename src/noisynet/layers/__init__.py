"""The noise: what noisynet exists for. Needs torch and nothing else."""

from .control import (
    attach,
    draw,
    held,
    hold,
    mean_weights,
    noisy_layers,
    release,
    resample,
    sigma_parameters,
    using,
)
from .convert import denoise, noisify
from .draw import Draw, FactorisedNoise, IndependentNoise, LayerNoise, NoiseKind
from .functional import noisy_linear, noisy_parameters
from .linear import NoisyLinear
from .state import NoisyLayer

__all__ = [
    "Draw",
    "FactorisedNoise",
    "IndependentNoise",
    "LayerNoise",
    "NoiseKind",
    "NoisyLayer",
    "NoisyLinear",
    "attach",
    "denoise",
    "draw",
    "held",
    "hold",
    "mean_weights",
    "noisify",
    "noisy_layers",
    "noisy_linear",
    "noisy_parameters",
    "release",
    "resample",
    "sigma_parameters",
    "using",
]
