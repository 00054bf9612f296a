"""Networks: torsos without noise, heads that carry it."""

from .actor_critic import ActorCriticNetwork
from .core import CoreState, RecurrentCore
from .heads import ActorCriticHead, DistributionalHead, DuelingHead, MakeLinear, QHead, QNetwork
from .torsos import (
    DataEfficientTorso,
    FirstDQNTorso,
    FramesTorso,
    MinAtarTorso,
    MLPTorso,
    NatureTorso,
    make_torso,
)

__all__ = [
    "ActorCriticHead",
    "ActorCriticNetwork",
    "CoreState",
    "DataEfficientTorso",
    "DistributionalHead",
    "DuelingHead",
    "FirstDQNTorso",
    "FramesTorso",
    "MLPTorso",
    "MakeLinear",
    "MinAtarTorso",
    "NatureTorso",
    "QHead",
    "QNetwork",
    "RecurrentCore",
    "make_torso",
]
