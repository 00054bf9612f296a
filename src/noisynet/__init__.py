"""Noisy networks for PyTorch: learned exploration noise (arXiv 1706.10295)."""

import signal
import sys

# The command line: until it listens, Ctrl-C ends it without a traceback of these imports.
if (sys.argv[0] == "-m" or sys.argv[0].endswith("/noisynet")) and (
    signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from .diagnostics import (
    Behaviour,
    Diagnosis,
    Finding,
    NoiseMonitor,
    behaviour,
    doctor,
    mean_sigma,
    not_finite,
    snr,
)
from .layers import (
    Draw,
    LazyNoisyConv1d,
    LazyNoisyConv2d,
    LazyNoisyLinear,
    NoisyConv1d,
    NoisyConv2d,
    NoisyGRUCell,
    NoisyLinear,
    NoisyLSTMCell,
    attach,
    denoise,
    draw,
    held,
    hold,
    load_peer_state_dict,
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
    "Behaviour",
    "Diagnosis",
    "Draw",
    "Finding",
    "LazyNoisyConv1d",
    "LazyNoisyConv2d",
    "LazyNoisyLinear",
    "NoiseMonitor",
    "NoisyConv1d",
    "NoisyConv2d",
    "NoisyGRUCell",
    "NoisyLSTMCell",
    "NoisyLinear",
    "attach",
    "behaviour",
    "denoise",
    "doctor",
    "draw",
    "held",
    "hold",
    "load_peer_state_dict",
    "mean_sigma",
    "mean_weights",
    "noisify",
    "noisy_layers",
    "not_finite",
    "release",
    "resample",
    "sigma_parameters",
    "snr",
    "using",
]
