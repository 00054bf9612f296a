"""MLflow: `--track mlflow`. MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME act as usual."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...runs.config import Config
from ...runs.errors import RunError
from .tracker import PROJECT, Tracker, needed

_MOST_FIELDS, _MOST_FIGURES = 100, 1000
"""The largest numbers of fields and of figures in one request."""
_SECONDS = 2.0
"""Time between two requests with figures, each of which may wait for a server."""


class MlflowTracker(Tracker):
    """A tracker that sends to MLflow."""

    name = "mlflow"

    def __init__(self) -> None:
        """Import the package; raises RunError if it is missing."""
        mlflow: Any = needed("mlflow")
        entities: Any = needed("mlflow.entities")
        self._failed: type[Exception] = mlflow.exceptions.MlflowException
        self._client: Any = mlflow.MlflowClient()
        self._param, self._metric = entities.Param, entities.Metric
        self._identity: str | None = None
        self._waiting: list[Any] = []
        self._sent = time.monotonic()

    def begin(self, folder: Path, config: Config, identity: str | None) -> str:
        """Create an MLflow run, or continue the one with this identity."""
        try:
            if identity is None:
                identity = self._begun(folder, config)
            else:
                self._client.update_run(identity, status="RUNNING")
        except self._failed as error:
            raise RunError(f"--track: mlflow: {error}") from error
        self._identity = identity
        return identity

    def _begun(self, folder: Path, config: Config) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(name)
        experiment = self._client.create_experiment(name) if known is None else known.experiment_id
        run = self._client.create_run(experiment, run_name=folder.resolve().name)
        identity: str = run.info.run_id
        fields = {"preset": config.preset, **config.effective_fields()}
        params = [self._param(field, str(value)) for field, value in fields.items()]
        for first in range(0, len(params), _MOST_FIELDS):
            self._client.log_batch(identity, params=params[first : first + _MOST_FIELDS])
        return identity

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Collect figures, and send them every two seconds."""
        now = int(time.time() * 1000)
        self._waiting += [self._metric(tag, value, now, step) for tag, value in figures.items()]
        if time.monotonic() - self._sent >= _SECONDS or len(self._waiting) > _MOST_FIGURES:
            self._send()

    def end(self) -> None:
        """Send what is left, and mark the MLflow run as ended."""
        self._send()
        self._ask(lambda: self._client.set_terminated(self._identity))

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for first in range(0, len(waiting), _MOST_FIGURES):
            batch = waiting[first : first + _MOST_FIGURES]
            self._ask(lambda batch=batch: self._client.log_batch(self._identity, metrics=batch))
        self._sent = time.monotonic()
