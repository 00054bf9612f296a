"""The noise: what noisynet exists for. Needs torch and nothing else."""

from .attention import NoisyMultiheadAttention
from .conv import NoisyConv1d, NoisyConv2d
from .convert import denoise, noisify
from .functional import noisy_conv, noisy_linear, noisy_parameters
from .layer import NoisyLayer
from .lazy import LazyNoisyConv1d, LazyNoisyConv2d, LazyNoisyLinear
from .linear import NoisyLinear
from .noise import (
    CellNoise,
    Draw,
    FactorisedNoise,
    IndependentNoise,
    LayerNoise,
    LinearNoise,
    NoiseKind,
    OutputNoise,
    SequenceNoise,
    WeightNoise,
)
from .peers import load_peer_state_dict
from .recurrent import NoisyGRUCell, NoisyLSTMCell
from .states import (
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

__all__ = [
    "CellNoise",
    "Draw",
    "FactorisedNoise",
    "IndependentNoise",
    "LayerNoise",
    "LazyNoisyConv1d",
    "LazyNoisyConv2d",
    "LazyNoisyLinear",
    "LinearNoise",
    "NoiseKind",
    "NoisyConv1d",
    "NoisyConv2d",
    "NoisyGRUCell",
    "NoisyLSTMCell",
    "NoisyLayer",
    "NoisyLinear",
    "NoisyMultiheadAttention",
    "OutputNoise",
    "SequenceNoise",
    "WeightNoise",
    "attach",
    "denoise",
    "draw",
    "held",
    "hold",
    "load_peer_state_dict",
    "mean_weights",
    "noisify",
    "noisy_conv",
    "noisy_layers",
    "noisy_linear",
    "noisy_parameters",
    "release",
    "resample",
    "sigma_parameters",
    "using",
]
