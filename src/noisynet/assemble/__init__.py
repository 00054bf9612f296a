"""From a config to a learning agent: the one room that reads every section of a config."""

from .agents import build_agent
from .assembler import Assembler
from .environments import make_environments, side_by_side
from .running import resume, start, train

__all__ = [
    "Assembler",
    "build_agent",
    "make_environments",
    "resume",
    "side_by_side",
    "start",
    "train",
]
