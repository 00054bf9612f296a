"""Whether noise works and how much of it there is. Needs torch and nothing else."""

from .behaviour import Behaviour, behaviour
from .doctor import doctor
from .findings import Diagnosis, Finding
from .monitor import NoiseMonitor
from .sigma import mean_sigma, not_finite, snr

__all__ = [
    "Behaviour",
    "Diagnosis",
    "Finding",
    "NoiseMonitor",
    "behaviour",
    "doctor",
    "mean_sigma",
    "not_finite",
    "snr",
]
