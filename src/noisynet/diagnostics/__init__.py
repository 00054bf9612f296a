"""Diagnostics: the doctor, the amount and the effect of noise, dormant units. Needs only torch."""

from .behaviour import Behaviour, behaviour
from .doctor import doctor
from .findings import Diagnosis, Finding
from .monitor import NoiseMonitor
from .sigma import mean_sigma, not_finite, snr
from .units import Units, units

__all__ = [
    "Behaviour",
    "Diagnosis",
    "Finding",
    "NoiseMonitor",
    "Units",
    "behaviour",
    "doctor",
    "mean_sigma",
    "not_finite",
    "snr",
    "units",
]
