"""Agents: one value-based agent whose parts are chosen by config."""

from .environments import make_environments
from .q_learning import LossNotFinite, QLearning, build_network

__all__ = ["LossNotFinite", "QLearning", "build_network", "make_environments"]
