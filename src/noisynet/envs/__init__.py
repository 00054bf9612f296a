"""Environments: N copies of one game that step together, Atari or any vector observation.

numpy alone; Gymnasium and ale-py are imported when an environment is made.
"""

from noisynet.envs.atari import AtariEnvironments, AtariPreprocessing
from noisynet.envs.control import ControlEnvironments
from noisynet.envs.environments import Environments, Step, UnusableEnvironment
from noisynet.envs.episodes import EpisodeCounter, FinishedEpisode
from noisynet.envs.make import make

__all__ = [
    "AtariEnvironments",
    "AtariPreprocessing",
    "ControlEnvironments",
    "Environments",
    "EpisodeCounter",
    "FinishedEpisode",
    "Step",
    "UnusableEnvironment",
    "make",
]
