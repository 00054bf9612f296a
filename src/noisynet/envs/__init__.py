"""Environments: N copies of one game that step together, with vector or image observations.

numpy alone; Gymnasium, ale-py and MinAtar are imported when an environment is made.
"""

from .asked import hangs, unanswered
from .atari import AtariEnvironments, AtariPreprocessing
from .episodes import EpisodeCounter, FinishedEpisode
from .generic import GymnasiumEnvironments
from .make import make
from .minatar import MinAtarEnvironments, MinAtarRules
from .toy import ChainEnvironments, DeepSeaEnvironments, ToyEnvironments
from .vector import (
    EnvironmentFailed,
    Environments,
    Step,
    UnusableEnvironment,
)

__all__ = [
    "AtariEnvironments",
    "AtariPreprocessing",
    "ChainEnvironments",
    "DeepSeaEnvironments",
    "EnvironmentFailed",
    "Environments",
    "EpisodeCounter",
    "FinishedEpisode",
    "GymnasiumEnvironments",
    "MinAtarEnvironments",
    "MinAtarRules",
    "Step",
    "ToyEnvironments",
    "UnusableEnvironment",
    "hangs",
    "make",
    "unanswered",
]
