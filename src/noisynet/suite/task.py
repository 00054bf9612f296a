"""One trial, on whatever machine it runs: go on from what its folder holds, then evaluate.

The folder alone says how far a trial is. So a trial can be killed at any moment, and started again
anywhere that sees the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..evaluation.agent import evaluate_run
from ..runs import checkpoint, read_metrics
from ..runs import config as run_config
from ..runs.config import SECTIONS, Config
from ..runs.errors import RunError
from ..runs.folder import RunFolder, sync_folder, write_file
from ..training import Diverged, resume, start

RESULT = "evaluation.json"
_LEFTOVERS = {"run.lock", "checkpoints", "config.yaml.tmp"}


@dataclass(frozen=True)
class Order:
    """What a trial's process is to do."""

    folder: Path
    config_text: str
    episodes: int
    noise: tuple[str, ...]
    version: str = __version__
    """The noisynet that gave the order."""
    patience: float = 90.0
    """Seconds to wait for a folder's lock: a process whose driver died may hold it a little."""


def run_trial(order: Order) -> dict[str, str]:
    """Train a trial to its end and evaluate it; says how it ended, and why where it failed.

    `state` is done, interrupted, diverged (another attempt would diverge too) or failed.
    """
    if order.version != __version__:
        reason = f"noisynet {__version__} on this node, expected {order.version}"
        return {"state": "failed", "reason": reason}
    try:
        _wait_for_lock(order.folder, order.patience)
        if result_of(order) is None:
            outcome = _train(order)
            if outcome.reason == "interrupted":
                return {"state": "interrupted"}
            _evaluate(order, outcome.reason)
    except Diverged as error:
        return {"state": "diverged", "reason": str(error)}
    except RunError as error:
        return {"state": "failed", "reason": str(error)}
    except OSError as error:
        return {"state": "failed", "reason": f"{order.folder}: {error.strerror or error}"}
    return {"state": "done"}


def _train(order: Order) -> Any:
    if (order.folder / "config.yaml").exists():
        return resume(order.folder)
    if order.folder.is_dir() and {one.name for one in order.folder.iterdir()} <= _LEFTOVERS:
        # Killed while the folder was being made: nothing was trained yet.
        shutil.rmtree(order.folder)
    config = run_config.from_yaml(order.config_text, order.folder.name)
    return start(config, order.folder)


def _evaluate(order: Order, reason: str) -> None:
    config = _config(order.folder)
    noise = [one for one in order.noise if one == "off" or config.exploration.has_noise]
    played = {
        one: evaluate_run(order.folder, episodes=order.episodes, noise=one == "on") for one in noise
    }
    result = {
        "step": checkpoint_step(order.folder),
        "reason": reason,
        "episodes": order.episodes,
        "noise": list(order.noise),
        "training_mean_return": _training_mean(order.folder),
        "evaluations": played,
    }
    unfinished = order.folder / f"{RESULT}.tmp"
    unfinished.unlink(missing_ok=True)
    try:
        write_file(unfinished, (json.dumps(result) + "\n").encode())
        unfinished.rename(order.folder / RESULT)
        sync_folder(order.folder)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise RunError(f"{order.folder / RESULT}: cannot be written: {error.strerror}") from error


def _training_mean(folder: Path) -> float | None:
    found = None
    for line in read_metrics(folder):
        found = line.get("game/mean_return", found)
    return found


def result_of(order: Order) -> dict[str, Any] | None:
    """Read a finished trial's result; None where there is none that this order asks for.

    One of another number of games, or of an earlier checkpoint, does not count.
    """
    try:
        result = json.loads((order.folder / RESULT).read_text("utf-8"))
        same = (result["episodes"], tuple(result["noise"])) == (order.episodes, order.noise)
        step = result["step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return result if same and step == checkpoint_step(order.folder) else None


def checkpoint_step(folder: Path) -> int:
    """Give the step of a run's newest checkpoint, by its name; 0 for none."""
    return checkpoint.newest_step(folder / "checkpoints") or 0


def reached_step(folder: Path) -> int:
    """Give the step that a run has come to, by the last whole line of its metrics."""
    step = 0
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError):
        with (folder / "metrics.jsonl").open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(file.tell() - 16384, 0))
            lines = file.read().split(b"\n")[:-1]
        step = int(json.loads(lines[-1])["step"])
    return max(step, checkpoint_step(folder))


def held_since(folder: Path) -> int | None:
    """Say when a process last took the run's lock, in nanoseconds by the folder's clock."""
    try:
        return (folder / "run.lock").stat().st_mtime_ns
    except OSError:
        return None


def mismatch(folder: Path, wanted: Config) -> str | None:
    """Say in what a folder's run is another than the suite's; None where there is no run yet."""
    if not (folder / "config.yaml").exists():
        return None
    try:
        found = _config(folder)
    except RunError as error:
        return str(error)
    have, want = (_fields(one) for one in (found, wanted))
    different = [
        f"{name} {have.get(name)!r} (the suite: {value!r})"
        for name, value in want.items()
        # What is left to the machine stands in the run as it was chosen.
        if have.get(name) != value and value != "auto"
    ]
    if not different:
        return None
    return f"{folder}: was started with {', '.join(different)}: choose another --out, or a variant"


def _fields(config: Config) -> Mapping[str, Any]:
    values = config.model_dump(mode="json", include=set(SECTIONS))
    return {name: value for section in values.values() for name, value in section.items()}


def _config(folder: Path) -> Config:
    run = RunFolder.open(folder)
    return run_config.from_yaml(run.config_text, str(run.config_file))


def _wait_for_lock(folder: Path, patience: float) -> None:
    """Wait until no process writes the run; raises RunError where one does for too long."""
    end = time.monotonic() + patience
    while True:
        try:
            descriptor = os.open(folder / "run.lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                holder = os.read(descriptor, 200).decode(errors="replace").strip()
                raise RunError(f"{folder}: in use by {holder or 'another process'}") from None
        else:
            return
        finally:
            os.close(descriptor)
        time.sleep(0.3)
