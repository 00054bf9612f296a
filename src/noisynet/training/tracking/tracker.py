"""The base of all trackers: which figures are sent, and to which entry at the service."""

from __future__ import annotations

import importlib
import json
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

from ...disk import replace_file
from ...envs.arguments import one_line
from ...extras import install_command
from ...runs.config import Config
from ...runs.errors import RunError, writing
from ...runs.tags import grouped
from ..events import Event, figures_of

FILE_NAME = "tracking.json"
"""File in a run's folder that holds the run's identity at each service: {"wandb": "…"}."""
PROJECT = "noisynet"
"""The project at the service, unless the service's own environment variable sets another."""


class Tracker(ABC):
    """A listener that sends a run's config and figures to a tracking service.

    Figures have the same tags as in TensorBoard. A resumed run continues its entry at the service.
    A service that fails while the run trains costs its figures, with a warning, and not the run.
    """

    name: str
    _begun = False

    def started(self, folder: Path, config: Config, step: int, notes: list[str]) -> None:
        """Create or continue the run's entry; raises RunError if the service refuses."""
        del step, notes
        file = folder / FILE_NAME
        known = _identities(file)
        identity = self.begin(folder, config, known.get(self.name))
        self._begun = True
        if known.get(self.name) != identity:
            with writing(file):
                replace_file(file, f"{json.dumps({**known, self.name: identity})}\n".encode())

    def on_event(self, event: Event, elapsed: float) -> None:
        """Send the figures of an event."""
        figures = grouped(figures_of(event, elapsed))
        if finite := {tag: value for tag, value in figures.items() if math.isfinite(value)}:
            self._ask(lambda: self.log(event.step, finite))

    def closed(self) -> None:
        """Send what is left, if the run has an entry."""
        if self._begun:
            self._ask(self.end)

    def _ask(self, what: Callable[[], object]) -> None:
        """Send a request; if it fails, warn."""
        try:
            what()
        except Exception as error:  # noqa: BLE001 - whatever it is, the run can go on
            warnings.warn(f"{self.name}: {one_line(error)}", RuntimeWarning, stacklevel=2)

    @abstractmethod
    def begin(self, folder: Path, config: Config, identity: str | None) -> str:
        """Create an entry, or continue the one with this identity; return its identity."""

    @abstractmethod
    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Send the figures of a step."""

    @abstractmethod
    def end(self) -> None:
        """Send what is left, and mark the entry as ended."""


def needed(package: str) -> ModuleType:
    """Import a service's package; raises RunError, with the cure, if it is missing."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise RunError(
            f"--track: {package} needs {error.name}: {install_command(package)}"
        ) from None


def _identities(file: Path) -> dict[str, str]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
