"""Evaluation: playing whole games without learning, and statistics of their scores."""

from .play import EpisodeResult, UnusableEvaluation, play
from .scores import (
    ReferenceScores,
    atari57_games,
    bootstrap_interval,
    human_normalised,
    interquartile_mean,
    mean_interval,
    probability_of_improvement,
    reference_scores,
)

__all__ = [
    "EpisodeResult",
    "ReferenceScores",
    "UnusableEvaluation",
    "atari57_games",
    "bootstrap_interval",
    "human_normalised",
    "interquartile_mean",
    "mean_interval",
    "play",
    "probability_of_improvement",
    "reference_scores",
]
