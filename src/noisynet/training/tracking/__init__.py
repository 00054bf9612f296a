"""Trackers: listeners that send a run's config and figures to Weights & Biases or MLflow."""

import importlib

from .tracker import Tracker

TRACKERS = {"wandb": "WandbTracker", "mlflow": "MlflowTracker"}
"""By the names that `--track` takes, which are those of the packages and extras."""


def make_tracker(name: str) -> Tracker:
    """Make one of TRACKERS; raises RunError where its package is missing."""
    return getattr(importlib.import_module(f".{name}", __name__), TRACKERS[name])()


__all__ = ["TRACKERS", "Tracker", "make_tracker"]
