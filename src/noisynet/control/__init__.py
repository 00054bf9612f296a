"""Control of the amount of noise: a scale, schedules, targets, a penalty; needs only torch."""

from .goals import ActionDeviation, Divergence, EffectiveEpsilon, Goal, divergence_of_epsilon
from .penalty import PenaltyWeight, sigma_penalty
from .scale import scale
from .schedules import Constant, Cosine, Exponential, Linear, Schedule
from .target import Target, target

__all__ = [
    "ActionDeviation",
    "Constant",
    "Cosine",
    "Divergence",
    "EffectiveEpsilon",
    "Exponential",
    "Goal",
    "Linear",
    "PenaltyWeight",
    "Schedule",
    "Target",
    "divergence_of_epsilon",
    "scale",
    "sigma_penalty",
    "target",
]
