"""What trackers share: which figures are sent, and how a run that goes on finds its former self."""

from __future__ import annotations

import importlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from ...disk import replace_file
from ...extras import cure
from ...runs.config import Config
from ...runs.errors import RunError, writing
from ...runs.tags import grouped
from ..events import Event, figures_of

FILE_NAME = "tracking.json"
"""In a run's folder: {"wandb": what the service calls this run}."""
PROJECT = "noisynet"
"""Where runs are kept, unless the service's own environment variable names another place."""


class Tracker(ABC):
    """A listener that sends a run's config and figures to a tracking service.

    Figures have the tags of TensorBoard. A run that goes on is sent to where it was sent before.
    """

    name: str
    _begun = False

    def started(self, folder: Path, config: Config, step: int, notes: list[str]) -> None:
        """Begin or go on with the run's twin; raises RunError where the service refuses."""
        del step, notes
        file = folder / FILE_NAME
        known = _identities(file)
        identity = self.begin(folder, config, known.get(self.name))
        self._begun = True
        if known.get(self.name) != identity:
            with writing(file):
                replace_file(file, f"{json.dumps({**known, self.name: identity})}\n".encode())

    def heard(self, event: Event, elapsed: float) -> None:
        """Send the figures of an event."""
        figures = grouped(figures_of(event, elapsed))
        if finite := {tag: value for tag, value in figures.items() if math.isfinite(value)}:
            self.log(event.step, finite)

    def closed(self) -> None:
        """Send what is left; nothing where no twin was begun."""
        if self._begun:
            self.end()

    @abstractmethod
    def begin(self, folder: Path, config: Config, identity: str | None) -> str:
        """Begin a twin, or go on with the one of an identity; return its identity."""

    @abstractmethod
    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Send figures of a step."""

    @abstractmethod
    def end(self) -> None:
        """Bring the twin to its end."""


def needed(package: str) -> ModuleType:
    """Import a service's package; raises RunError, with the cure, where it is missing."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise RunError(f"--track: {package} needs {error.name}: {cure(package)}") from None


def _identities(file: Path) -> dict[str, str]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
