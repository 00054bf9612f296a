"""Weights & Biases: `--track wandb`. WANDB_PROJECT, WANDB_MODE=offline and more act as usual."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...runs.config import Config
from ...runs.errors import RunError
from .tracker import PROJECT, Tracker, needed


class WandbTracker(Tracker):
    """A tracker that sends to Weights & Biases."""

    name = "wandb"

    def __init__(self) -> None:
        """Import the package; raises RunError if it is missing."""
        self._wandb: Any = needed("wandb")
        self._run: Any = None

    def begin(self, folder: Path, config: Config, identity: str | None) -> str:
        """Create a W&B run, or continue the one with this identity."""
        try:
            self._run = self._wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=folder.resolve().name,
                id=identity,
                resume="allow",
                dir=folder,
                config={"preset": config.preset, **config.effective_fields()},
                # The package's capture of console output would break the progress bar.
                settings=self._wandb.Settings(console="off"),
            )
        except self._wandb.errors.Error as error:
            raise RunError(f"--track: wandb: {error}") from error
        # Our steps go back to the checkpoint when a run is resumed; W&B's own cannot.
        self._run.define_metric("*", step_metric="step")
        return self._run.id

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Send figures; the package has its own process for the network."""
        self._run.log({"step": step, **figures})

    def end(self) -> None:
        """Send what is left."""
        self._run.finish()
