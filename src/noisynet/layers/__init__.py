"""Noisy layers, their noise, and the functions that hold, redraw and apply it; needs only torch."""

from .attention import NoisyMultiheadAttention
from .conv import NoisyConv1d, NoisyConv2d, NoisyConv3d
from .conv_transposed import NoisyConvTranspose1d, NoisyConvTranspose2d, NoisyConvTranspose3d
from .convert import denoise, noisify
from .draws import Draw
from .functional import noisy_conv, noisy_conv_transpose, noisy_linear, noisy_parameters
from .initial import InitName
from .layer import NoisyLayer
from .lazy import LazyNoisyConv1d, LazyNoisyConv2d, LazyNoisyLinear
from .linear import NoisyLinear
from .noise import (
    CellNoise,
    FactorisedNoise,
    IndependentNoise,
    LayerNoise,
    LinearNoise,
    NoiseKind,
    NoiseName,
    OutputNoise,
    SequenceNoise,
    WeightNoise,
)
from .optimizers import attach, sigma_parameters
from .peers import load_peer_state_dict
from .recurrent import NoisyGRUCell, NoisyLSTMCell
from .rnn import NoisyGRU, NoisyLSTM, NoisyRNN
from .states import draw, held, hold, mean_weights, noisy_layers, release, resample, using

__all__ = [
    "CellNoise",
    "Draw",
    "FactorisedNoise",
    "IndependentNoise",
    "InitName",
    "LayerNoise",
    "LazyNoisyConv1d",
    "LazyNoisyConv2d",
    "LazyNoisyLinear",
    "LinearNoise",
    "NoiseKind",
    "NoiseName",
    "NoisyConv1d",
    "NoisyConv2d",
    "NoisyConv3d",
    "NoisyConvTranspose1d",
    "NoisyConvTranspose2d",
    "NoisyConvTranspose3d",
    "NoisyGRU",
    "NoisyGRUCell",
    "NoisyLSTM",
    "NoisyLSTMCell",
    "NoisyLayer",
    "NoisyLinear",
    "NoisyMultiheadAttention",
    "NoisyRNN",
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
    "noisy_conv_transpose",
    "noisy_layers",
    "noisy_linear",
    "noisy_parameters",
    "release",
    "resample",
    "sigma_parameters",
    "using",
]
