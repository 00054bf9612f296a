"""A run is a folder, and one process at a time writes into it.

    config.yaml      everything needed to repeat the run; its first line is the run's format
    metrics.jsonl    one JSON object a line (metrics.py), and events.out.tfevents.* beside it
    checkpoints/     the newest good checkpoint (checkpoint.py)
    replay/          the ring buffer of stored frames, if the agent has a replay
    run.lock         held by the process that writes, and free as soon as that process is gone

`RunFolder.create` makes a run and holds its lock; `RunFolder.open` reads one, and `lock()` turns
the reader into the writer. An error is one line (`RunError`).
"""

from __future__ import annotations

import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import Self

from ..disk import replace_file, sync_folder, write_file
from . import checkpoint, yaml_text
from .errors import NewerFormat, RunError, shown, writing
from .locks import InUse, Lock

FORMAT = 1
"""The layout that this version writes, and the newest that it reads."""

_UNFINISHED = "config.yaml.tmp"
_KILLED = " (it was killed while it was being made: `noisynet train` can make it anew there)"


def default_path(preset: str, root: str | Path = "runs", *, now: datetime | None = None) -> Path:
    """Make and return a new, empty folder for a run, such as `runs/pong-20261121-142233`.

    `preset` is a preset's name, an environment id or a YAML file. If the name is taken, `-2`, `-3`,
    … is appended. Making the folder takes the name, so two processes never get the same one.
    """
    name = Path(preset).stem if preset.endswith((".yaml", ".yml")) else preset
    name = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "run"
    stem = f"{name}-{(now or datetime.now()).strftime('%Y%m%d-%H%M%S')}"
    path = Path(root) / stem
    count = 1
    try:
        Path(root).mkdir(parents=True, exist_ok=True)
        while True:
            try:
                path.mkdir()
            except FileExistsError:
                count += 1
                path = Path(root) / f"{stem}-{count}"
            else:
                return path
    except OSError as error:
        raise RunError(f"{path}: cannot make a folder for the run: {error.strerror}") from error


class RunFolder:
    """A run on disk. Made by `create` or `open`; `close`, or leaving a `with`, frees its lock."""

    def __init__(self, path: Path, config_text: str) -> None:
        self.path = path
        self.config_text = config_text
        """What config.yaml says, the run's format included."""
        self.config_file = path / "config.yaml"
        self.metrics_file = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.replay = path / "replay"
        self.lock_file = path / "run.lock"
        self._lock = Lock(self.lock_file)

    @staticmethod
    def check_free(path: Path) -> None:
        """Raise RunError if the folder holds anything, before work is done that would be lost.

        What is left of a run that was killed while it was being made does not count.
        """
        try:
            held = list(path.iterdir()) if path.exists() else []
            found = next((one for one in held if not _is_leftover(one)), None)
        except OSError as error:
            raise RunError(f"{path}: cannot make a run here: {error.strerror}") from error
        if found is not None:
            raise RunError(
                f"{path}: not empty (it holds {found.name}); a new run takes a new or empty "
                "folder, and `noisynet resume` continues a run"
            )

    def discard(self) -> None:
        """Remove the folder of a run in which nothing was trained."""
        shutil.rmtree(self.path, ignore_errors=True)

    @classmethod
    def create(cls, path: str | Path, config_text: str) -> Self:
        """Make a run in a new or empty folder, and hold its lock.

        `config_text` is a YAML mapping. Raises RunError if the folder holds anything, cannot be
        written, or another process makes a run in it at the same time.
        """
        path = Path(path)
        stored_text = _with_format(path, config_text)
        run = cls(path, stored_text)
        try:
            path.mkdir(parents=True, exist_ok=True)
            cls.check_free(path)
            run._take_lock()
            # Checked again: another process may have made a run here in the meantime.
            cls.check_free(path)
            checkpoint.begin(run.checkpoints)
            # A folder is a run once it has a config.yaml, which therefore appears last, and whole.
            unfinished = path / _UNFINISHED
            unfinished.unlink(missing_ok=True)
            write_file(unfinished, stored_text.encode())
            unfinished.rename(run.config_file)
            sync_folder(path)
        except OSError as error:
            if run.locked:
                # Leave the folder empty, so that the same command can be repeated.
                for file in (run.path / _UNFINISHED, run.config_file, run.lock_file):
                    file.unlink(missing_ok=True)
                shutil.rmtree(run.checkpoints, ignore_errors=True)
                run.close()
            raise RunError(f"{path}: cannot make a run here: {error.strerror}") from error
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Read a run without locking it, so that it can be read while it trains.

        Raises RunError if the folder is missing, is not a run or holds a damaged config.yaml, and
        NewerFormat if a newer noisynet wrote it.
        """
        path = Path(path)
        try:
            if not path.exists():
                raise RunError(f"{path}: no such folder")
            if not path.is_dir():
                raise RunError(f"{path}: not a run: a run is a folder, and this is a file")
            file = path / "config.yaml"
            if not file.exists():
                begun = (path / "run.lock").exists() and all(map(_is_leftover, path.iterdir()))
                raise RunError(
                    f"{path}: not a run: it holds no config.yaml{_KILLED if begun else ''}"
                )
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {error.strerror}") from error
        text = yaml_text.read(file)
        _check_config(file, text)
        return cls(path, text)

    def replace_config(self, config_text: str) -> None:
        """Replace the run's config atomically; the lock must be held.

        Raises RunError if it cannot be written.
        """
        assert self.locked, "one process at a time writes a run"
        stored_text = _with_format(self.path, config_text)
        with writing(self.config_file):
            replace_file(self.config_file, stored_text.encode())
        self.config_text = stored_text

    @property
    def locked(self) -> bool:
        """Whether this object holds the run's lock."""
        return self._lock.held

    def lock(self) -> Self:
        """Become the run's only writer, until `close` or the end of the process.

        Raises RunError, naming the holder, if another process (or another RunFolder in this one)
        writes this run. Does nothing if this object holds the lock already.
        """
        try:
            self._take_lock()
        except OSError as error:
            raise RunError(f"{self.path}: cannot be locked: {error.strerror}") from error
        return self

    def close(self) -> None:
        """Free the lock, if held. The paths of the folder stay usable for reading."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take_lock(self) -> None:
        try:
            self._lock.acquire()
        except InUse as error:
            raise RunError(f"{error}; one process at a time writes a run") from error


def _is_leftover(path: Path) -> bool:
    """Return whether this may be left of a run that was killed while it was being made."""
    if path.name == "checkpoints":
        return path.is_dir() and all(one.name == checkpoint.NONE_YET for one in path.iterdir())
    return path.name in ("run.lock", _UNFINISHED) and path.is_file()


def _with_format(path: Path, config_text: str) -> str:
    """Return `config_text` with the format as its first line; raise if it is not a mapping."""
    try:
        given = yaml_text.load(config_text)
        if isinstance(given, dict) and "format" in given:
            stored_text = config_text
        else:
            stored_text = f"format: {FORMAT}\n{config_text}"
        _check_config(path / "config.yaml", stored_text)
    except ValueError as error:
        raise RunError(f"{path}: cannot make a run with a damaged config: {error}") from error
    return stored_text


def _check_config(file: Path, stored_text: str) -> None:
    """Raise RunError for a text that is not a run's config, and NewerFormat for a newer one."""
    try:
        config = yaml_text.load(stored_text)
    except ValueError as error:
        raise RunError(f"{file}: damaged: {error}") from error
    if not isinstance(config, dict):
        raise RunError(f"{file}: damaged: a config is a mapping, got {type(config).__name__}")
    check_format(str(file), config.get("format"))


def check_format(origin: str, found: object) -> None:
    """Raise RunError if `found` is not a run's format, and NewerFormat if it is a newer one."""
    if type(found) is not int or found < 1:
        raise RunError(
            f"{origin}: not a run's config: its first line names the run's format "
            f"(`format: {FORMAT}`), got {shown(found)}"
        )
    if found > FORMAT:
        raise NewerFormat(
            f"{origin}: format {shown(found)} comes from a newer noisynet; this one reads up to "
            f"{FORMAT}"
        )
