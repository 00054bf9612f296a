"""Open a run: the one way from a path to a run's folder, config, metrics and checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import checkpoint, config
from .checkpoint import Checkpoint, DamagedCheckpoint
from .config import Config
from .errors import RunError
from .folder import RunFolder
from .metrics import MetricsReader, read_metrics
from .saved_state import SavedState, problem_of


@dataclass(frozen=True)
class Run:
    """A run on disk, open for reading; `folder.lock()` makes it the run's only writer."""

    folder: RunFolder
    config: Config

    @property
    def path(self) -> Path:
        """The run's folder, as it was named."""
        return self.folder.path

    def metrics(self) -> MetricsReader:
        """Return a reader of the run's metrics.jsonl, line by line."""
        return read_metrics(self.path)

    def newest_checkpoint(self) -> Checkpoint | None:
        """Read the newest checkpoint; None before the first one.

        Raises DamagedCheckpoint if it is not what was written or lacks what a run goes on from,
        and NewerFormat if a newer noisynet wrote it.
        """
        found = checkpoint.read_newest(self.folder.checkpoints)
        if found is None:
            return None
        if (problem := problem_of(SavedState, found.state)) is not None:
            place = self.folder.checkpoints / f"step_{found.step:09d}" / "state.json"
            raise DamagedCheckpoint(f"{place}: damaged: state.{problem}")
        return found

    def trained(self) -> Checkpoint:
        """Read the newest checkpoint; raises RunError before the first one, and as above."""
        found = self.newest_checkpoint()
        if found is None:
            raise RunError(f"{self.path}: no checkpoint yet")
        return found


def open_run(path: str | Path) -> Run:
    """Open the run in a folder without locking it: a run can be read while it trains.

    Raises RunError, with one line, if the folder is missing, is no run, or holds a config.yaml that
    is damaged or does not validate, and NewerFormat if a newer noisynet wrote it.
    """
    folder = RunFolder.open(path)
    return Run(folder, config.from_yaml(folder.config_text, str(folder.config_file)))
