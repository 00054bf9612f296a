"""Trackers: listeners that send a run's config and figures to Weights & Biases or MLflow."""

import importlib

from .tracker import Tracker

TRACKERS = {"wandb": "WandbTracker", "mlflow": "MlflowTracker"}
"""Tracker classes by the names that `--track` accepts, also those of packages and extras."""


def make_tracker(name: str) -> Tracker:
    """Build the tracker of a name in TRACKERS; raises RunError if its package is missing."""
    return getattr(importlib.import_module(f".{name}", __name__), TRACKERS[name])()


__all__ = ["TRACKERS", "Tracker", "make_tracker"]
