"""Opening a run: the only way from a path to a run's folder, config, metrics and checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
        """The path of the run's folder, as it was given."""
        return self.folder.path

    def metrics(self) -> MetricsReader:
        """Return a reader of the run's metrics.jsonl, line by line."""
        return read_metrics(self.path)

    def newest_checkpoint(self) -> Checkpoint | None:
        """Read the newest checkpoint; None before the first one.

        Raises DamagedCheckpoint if it differs from what was written, or lacks state that a run
        needs to continue; NewerFormat if a newer noisynet wrote it; and RunError if a field of
        config.yaml has changed since that may not change (`MAY_CHANGE`).
        """
        found = checkpoint.read_newest(self.folder.checkpoints)
        if found is None:
            return None
        if (problem := problem_of(SavedState, found.state)) is not None:
            place = self.folder.checkpoints / f"step_{found.step:09d}" / "state.json"
            raise DamagedCheckpoint(f"{place}: damaged: state.{problem}")
        refused, _ = self._changes(found)
        if refused:
            raise RunError(
                f"{self.folder.config_file}: does not fit the checkpoint of step {found.step:,}: "
                f"{'; '.join(refused)}: set it back, or train a new run"
            )
        return found

    def notes(self, found: Checkpoint) -> list[str]:
        """Return notes for the user on how the config differs from that of a checkpoint."""
        _, noted = self._changes(found)
        notes = [f"since the checkpoint: {change}" for change in noted]
        former = found.state.get("config", {}).get("training", {}).get("steps")
        if former not in (None, self.config.training.steps):
            # The schedules of the current config; other changes are among the notes above.
            notes += [
                f"the schedule of {name} ends at the last step: from now on it is that of a run of "
                f"{self.config.training.steps:,} steps, not of {former:,} as before"
                for name in self.config.spanning()
            ]
        return notes

    def _changes(self, found: Checkpoint) -> tuple[list[str], list[str]]:
        # Older checkpoints do not hold their config; a misfit shows only when they are restored.
        return self.config.changes_since(found.state.get("config", {}))

    def check_unsaved(self) -> None:
        """Raise RunError if training would be lost by restarting a run that has no checkpoint.

        A run that was stopped before its first checkpoint may restart. If its mark is missing, and
        the metrics show that there was a checkpoint, it has been removed.
        """
        if (self.folder.checkpoints / checkpoint.NONE_YET).exists():
            return
        training, step, saved = self.config.training, 0, False
        for line in self.metrics() if self.folder.metrics_file.exists() else ():
            step = max(step, line["step"])
            saved |= "time/checkpoint" in line
        # Twice the interval: steps played while the first checkpoint is due are logged before it.
        if saved or step >= min(2 * training.checkpoint_every, training.steps):
            raise RunError(
                f"{self.folder.checkpoints}: holds no checkpoint, and the metrics reach step "
                f"{step:,}: to begin again at step 0 and lose them, remove "
                f"{self.folder.metrics_file.name}"
            )

    def changed(self, found: Checkpoint | None, fields: Mapping[str, Any]) -> Run:
        """Return the run with some fields set to other values; nothing is written.

        If `steps` is set and the run is solved, `solved_return` is removed, or the run would end at
        once. Raises RunError for values that do not fit or have no effect, for `steps` that the
        checkpoint `found` has already reached, and for a field that may not change after one.
        """
        fields = config.with_present_names(fields)
        changed = self.config.replaced(**fields)
        changed.check_used(fields)
        if found is None:
            return replace(self, config=changed)
        refused, _ = changed.changes_since(found.state.get("config", {}))
        if refused:
            raise RunError(f"{'; '.join(refused)}: it cannot change in a resumed run")
        if "steps" in fields:
            training = changed.training
            if training.steps <= found.step:
                raise RunError(
                    f"--steps: got {training.steps}, expected more than {found.step}, the steps "
                    "that the run has taken"
                )
            returns = found.state["loop"]["returns"][-training.solved_games :]
            mean = sum(returns) / len(returns) if returns else None
            if training.solved_by(len(returns), mean):
                changed = changed.replaced(solved_return=None)
        return replace(self, config=changed)

    def trained(self) -> Checkpoint:
        """Read the newest checkpoint like `newest_checkpoint`; raise RunError if there is none."""
        found = self.newest_checkpoint()
        if found is None:
            raise RunError(f"{self.path}: no checkpoint yet")
        return found


def open_run(path: str | Path) -> Run:
    """Open the run in a folder without locking it, so that it can be read while it trains.

    Raises RunError, with one line, if the folder is missing, is not a run, or holds a config.yaml
    that is damaged or does not validate, and NewerFormat if a newer noisynet wrote it.
    """
    folder = RunFolder.open(path)
    return Run(folder, config.from_yaml(folder.config_text, str(folder.config_file)))
