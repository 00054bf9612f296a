"""Environments: N copies of one game that step together, with vector or image observations.

The package imports numpy alone; Gymnasium, ale-py and MinAtar are imported when an environment is
made.
"""

from .asked import Unfit, hangs, unanswered
from .atari import AtariEnvironments, AtariPreprocessing
from .episodes import EpisodeCounter, FinishedEpisode
from .generic import GymnasiumEnvironments, seen_and_taken
from .make import being_imported, imported_function, make, make_own
from .minatar import MinAtarEnvironments, MinAtarRules
from .spaces import ObservationKind
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
    "ObservationKind",
    "Step",
    "ToyEnvironments",
    "Unfit",
    "UnusableEnvironment",
    "being_imported",
    "hangs",
    "imported_function",
    "make",
    "make_own",
    "seen_and_taken",
    "unanswered",
]
