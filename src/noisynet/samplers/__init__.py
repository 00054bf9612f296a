"""One run whose environments are played by sampler actors, on Ray or in this process."""

from .assembler import SamplersAssembler
from .running import resume, start, train

__all__ = ["SamplersAssembler", "resume", "start", "train"]
