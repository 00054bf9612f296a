"""What a run's folder says: config, state, and its figures, thinned while they are read."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from ..runs import checkpoint, read_metrics
from ..runs import config as run_config
from ..runs.config import Config
from ..runs.errors import RunError
from ..runs.folder import RunFolder
from .curves import Curve, Thinner

_KEPT = ("game/return", "game/mean_return", "loss", "epsilon", "entropy")
_KEPT_FAMILIES = ("snr/", "sigma/", "noise/")
_NUMBERED = re.compile(r"(step|nan)_(\d+)")
_HOLDER = re.compile(r"process (\d+) on (.+)")


@dataclass(frozen=True)
class RunRecord:
    """Hold what is shown of a run. Steps are decisions of the agent, times are seconds."""

    path: Path
    config: Config
    state: str
    """running, solved, finished, stopped, diverged, or new: nothing was trained yet."""
    step: int
    games: int
    mean_return: float | None
    """Mean return of the last games, at most `solved_games` of the config."""
    seconds: float
    """Training time so far."""
    damaged: int
    """Lines of metrics.jsonl that could not be read and were left out."""
    curves: dict[str, Curve]

    @property
    def name(self) -> str:
        """Give the folder's name."""
        return self.path.resolve().name or str(self.path)

    @property
    def seed(self) -> int:
        """Give the seed that the run was started with."""
        return self.config.training.seed

    def tags(self, family: str) -> list[str]:
        """List the figures of a family, such as `snr/`."""
        return [tag for tag in self.curves if tag.startswith(family)]


def read_run(path: Path) -> RunRecord:
    """Read a run, also one that is being written; raises RunError with one line for what is none.

    Lines of metrics.jsonl are read one at a time and thinned at once. A line that is damaged is
    left out and counted; the last one of a run that is being written may be half a line.
    """
    folder = RunFolder.open(path)
    config = run_config.from_yaml(folder.config_text, str(folder.config_file))
    thinners: dict[str, Thinner] = {}
    step = games = damaged = 0
    seconds, mean_return = 0.0, None
    if folder.metrics_file.exists():
        lines = read_metrics(path)
        for line in lines:
            step = max(step, line["step"])
            for tag, value in line.items():
                if not _is_number(value):
                    continue
                if tag in _KEPT or (tag.startswith(_KEPT_FAMILIES) and "/env_" not in tag):
                    thinner = thinners.get(tag)
                    if thinner is None:
                        thinner = thinners[tag] = Thinner()
                    thinner.add(line["step"], value)
            if _is_number(line.get("game/return")):
                games += 1
                if _is_number(found := line.get("game/mean_return")):
                    mean_return = float(found)
            if _is_number(elapsed := line.get("time/elapsed")):
                seconds = max(seconds, float(elapsed))
        damaged = lines.damaged
    curves = {tag: curve for tag, one in thinners.items() if (curve := one.curve()) is not None}
    running = _is_written(folder)
    if running and damaged and not _ends_with_a_line(folder.metrics_file):
        damaged -= 1  # the line that is being written just now
    step = max(step, _numbered_step(folder, "step"))
    state = "running" if running else _state(folder, config, step, games, mean_return)
    return RunRecord(path, config, state, step, games, mean_return, seconds, damaged, curves)


def mean_return_at(run: RunRecord, step: float) -> float | None:
    """Give a run's mean return of the last games at a step, exactly; None before its first game.

    Curves are thinned: where the last line up to the step may have gone into a wider bucket,
    metrics.jsonl is read once more, line by line.
    """
    curve = run.curves.get("game/mean_return")
    if curve is None:
        return None
    if step >= curve.step[-1] or step in curve.step:
        return curve.at(step)
    latest, found = -1, None
    for line in read_metrics(run.path):
        value = line.get("game/mean_return")
        if _is_number(value) and latest <= line["step"] <= step:
            latest, found = line["step"], float(value)
    return found


def distinct(paths: Iterable[Path]) -> list[Path]:
    """Leave out paths that name a folder again, as they were given: `run`, `./run`, a link."""
    found: dict[Path, Path] = {}
    for path in paths:
        found.setdefault(path.resolve(), path)
    return list(found.values())


def _is_number(value: object) -> TypeGuard[float]:
    return type(value) in (int, float)


def find_runs(root: Path) -> list[Path]:
    """List the runs under a folder, itself included; raises RunError where there is no folder."""
    if not root.is_dir():
        raise RunError(f"{root}: no such folder")
    found: list[Path] = []
    for place, folders, files in os.walk(root):
        if "config.yaml" in files and "checkpoints" in folders:
            found.append(Path(place))
            folders.clear()  # a run holds no runs
        folders[:] = sorted(name for name in folders if not name.startswith("."))
    return sorted(found)


def _state(
    folder: RunFolder, config: Config, step: int, games: int, mean_return: float | None
) -> str:
    training = config.training
    if _numbered_step(folder, "nan") >= max(step, 1):
        return "diverged"
    goal = training.solved_return
    if (
        goal is not None
        and mean_return is not None
        and games >= training.solved_games
        and mean_return >= goal
    ):
        return "solved"
    if step >= training.steps:
        return "finished"
    return "stopped" if step else "new"


def _numbered_step(folder: RunFolder, kind: str) -> int:
    """Give the step of the newest checkpoint of a kind, by its name; 0 for none."""
    if kind == "step":
        places = [checkpoint.newest(folder.checkpoints)]
    else:
        places = list(folder.checkpoints.glob(f"{kind}_*"))
    names = [_NUMBERED.match(place.name) for place in places if place is not None]
    return max((int(name[2]) for name in names if name is not None), default=0)


def _is_written(folder: RunFolder) -> bool:
    """Tell whether a process on this machine holds the run's lock, without touching the lock.

    To try it, even for a moment, could turn away a writer that takes it at that moment.
    """
    try:
        found = folder.lock_file.stat()
        holder = _HOLDER.match(folder.lock_file.read_text(errors="replace"))
    except OSError:
        return False
    try:
        held = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return holder is not None and _lives(int(holder[1]), holder[2].strip())
    process = int(holder[1]) if holder else None
    return any(holds(line, found, process) for line in held)


def holds(line: str, file: os.stat_result, process: int | None) -> bool:
    """Tell whether a line of /proc/locks is a lock on the file, which `process` says to hold.

    Other file systems have files with the same inode, so the device counts too. Where folders are
    laid over others (overlayfs, btrfs) `stat` names another device than the kernel: there the
    holder's process must be the one that the lock file names.
    """
    parts = line.split()
    if len(parts) < 6 or parts[1] != "FLOCK":
        return False
    *device, inode = parts[5].split(":")
    if inode != str(file.st_ino):
        return False
    same = [int(part, 16) for part in device] == [os.major(file.st_dev), os.minor(file.st_dev)]
    return same or parts[4] == str(process)


def _lives(process: int, host: str) -> bool:
    if host != socket.gethostname():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _ends_with_a_line(file: Path) -> bool:
    with file.open("rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        stream.seek(max(end - 1, 0))
        return stream.read() in (b"", b"\n")
