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
    """A run's twin at Weights & Biases."""

    name = "wandb"

    def __init__(self) -> None:
        """Import the package; raises RunError where it is missing."""
        self._wandb: Any = needed("wandb")
        self._run: Any = None

    def begin(self, folder: Path, config: Config, identity: str | None) -> str:
        """Begin a twin, or go on with one."""
        try:
            self._run = self._wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=folder.resolve().name,
                id=identity,
                resume="allow",
                dir=folder,
                config={"preset": config.preset, **config.in_force()},
                # Its own capture of what is printed would tear the progress bar.
                settings=self._wandb.Settings(console="off"),
            )
        except self._wandb.errors.Error as error:
            raise RunError(f"--track: wandb: {error}") from error
        # Our steps, which go back to the checkpoint where a run goes on; its own cannot.
        self._run.define_metric("*", step_metric="step")
        return self._run.id

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Send figures; a process of the package's own takes care of the network."""
        self._run.log({"step": step, **figures})

    def end(self) -> None:
        """Send what is left."""
        self._run.finish()
