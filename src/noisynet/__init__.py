"""Noisy networks for PyTorch: learned exploration noise (arXiv 1706.10295)."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import control
    from .diagnostics import (
        Behaviour,
        Diagnosis,
        Finding,
        NoiseMonitor,
        Units,
        behaviour,
        doctor,
        mean_sigma,
        not_finite,
        snr,
        units,
    )
    from .front import TrainedAgent as TrainedAgent
    from .front import load as load
    from .front import resume as resume
    from .front import train as train
    from .layers import (
        Draw,
        LazyNoisyConv1d,
        LazyNoisyConv2d,
        LazyNoisyLinear,
        NoisyConv1d,
        NoisyConv2d,
        NoisyConv3d,
        NoisyConvTranspose1d,
        NoisyConvTranspose2d,
        NoisyConvTranspose3d,
        NoisyGRU,
        NoisyGRUCell,
        NoisyLinear,
        NoisyLSTM,
        NoisyLSTMCell,
        NoisyMultiheadAttention,
        NoisyRNN,
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
    from .plasticity import Revived, revive

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
    "NoisyConv3d",
    "NoisyConvTranspose1d",
    "NoisyConvTranspose2d",
    "NoisyConvTranspose3d",
    "NoisyGRU",
    "NoisyGRUCell",
    "NoisyLSTM",
    "NoisyLSTMCell",
    "NoisyLinear",
    "NoisyMultiheadAttention",
    "NoisyRNN",
    "Revived",
    "Units",
    "attach",
    "behaviour",
    "control",
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
    "revive",
    "sigma_parameters",
    "snr",
    "units",
    "using",
]

WITH_TRAIN = ("TrainedAgent", "load", "resume", "train")
"""Public names that need the extra `train`, and are left out of `import *`."""


def __getattr__(name: str) -> Any:
    """Import a public name on first access, so that `--help` does not wait seconds for torch."""
    if name in ("control", "diagnostics", "layers", "plasticity"):
        return importlib.import_module(f".{name}", __name__)
    if name in WITH_TRAIN:
        try:
            from . import front
        except ModuleNotFoundError as error:
            from .extras import install_command

            needed = f"noisynet.{name} needs {error.name}: {install_command('train')}"
            raise ImportError(needed, name=error.name) from error
        return getattr(front, name)
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import diagnostics, layers, plasticity

    rooms = (diagnostics, plasticity, layers)
    value = getattr(next(room for room in rooms if name in room.__all__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the names that can be imported here: `help(noisynet)` reads each of them."""
    from .extras import missing_for_training

    return sorted({*globals(), *__all__, *(() if missing_for_training() else WITH_TRAIN)})
