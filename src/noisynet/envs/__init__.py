"""Environments: N copies of one game that step together, with vector or image observations.

numpy alone; Gymnasium, ale-py and MinAtar are imported when an environment is made.
"""

from noisynet.envs.atari import AtariEnvironments, AtariPreprocessing
from noisynet.envs.custom import make_custom
from noisynet.envs.environments import (
    EnvironmentFailed,
    Environments,
    Step,
    UnusableEnvironment,
)
from noisynet.envs.episodes import EpisodeCounter, FinishedEpisode
from noisynet.envs.generic import GymnasiumEnvironments
from noisynet.envs.make import make
from noisynet.envs.minatar import MinAtarEnvironments, MinAtarRules
from noisynet.envs.toy import ChainEnvironments, DeepSeaEnvironments, ToyEnvironments

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
    "make",
    "make_custom",
]
