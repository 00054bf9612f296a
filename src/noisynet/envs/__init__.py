"""Environments: N copies of one game that step together, with vector or image observations.

The package imports numpy alone; Gymnasium, ale-py and MinAtar are imported when an environment is
made.
"""

from .atari import AtariEnvironments, AtariPreprocessing
from .calls import Unfit, hangs, unanswered
from .episodes import EpisodeCounter, FinishedEpisode
from .generic import GymnasiumEnvironments, observation_kind_and_first_action
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
    "observation_kind_and_first_action",
    "unanswered",
]
