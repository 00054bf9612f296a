"""Networks: torsos without noise, heads that carry it."""

from .heads import DuelingHead, MakeLinear, QHead, QNetwork
from .torsos import MLPTorso, NatureTorso, make_torso

__all__ = [
    "DuelingHead",
    "MLPTorso",
    "MakeLinear",
    "NatureTorso",
    "QHead",
    "QNetwork",
    "make_torso",
]
