"""One trial, on any machine: training continues from what its folder holds, then it is evaluated.

The state of a trial is in its folder and nowhere else. So a trial can be killed at any moment, and
started again on any machine that sees the folder.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..assemble import resume, start
from ..disk import read_file, replace_file
from ..evaluation.agent import evaluate_run
from ..runs import checkpoint, read_metrics
from ..runs import config as run_config
from ..runs.config import Config
from ..runs.errors import RunError, shown, writing
from ..runs.locks import Lock
from ..runs.metrics import newest_line
from ..runs.opening import open_run
from ..runs.saved_state import Part, problem_of
from ..training import Diverged, Outcome

RESULT = "evaluation.json"


class _Evaluated(Part):
    mean: float
    noise: str


class _Result(Part):
    """What `evaluation.json` holds."""

    step: int
    reason: str
    episodes: int
    noise: list[str]
    evaluations: dict[str, _Evaluated]


@dataclass(frozen=True)
class Task:
    """The work of a trial's process: to train a run in a folder and to evaluate it."""

    folder: Path
    config_text: str
    episodes: int
    noise: tuple[str, ...]
    version: str = __version__
    """The version of noisynet that made the task."""
    patience: float = 90.0
    """Seconds to wait for a folder's lock, which the process of a lost driver may still hold."""


def run_trial(task: Task) -> dict[str, str]:
    """Train a trial to its end and evaluate it; return how it ended.

    `state` is done, interrupted, diverged (another attempt would diverge too) or failed; for the
    last two, `reason` says why.
    """
    if task.version != __version__:
        reason = f"noisynet {__version__} on this node, expected {task.version}"
        return {"state": "failed", "reason": reason}
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As in the background of a script; but by SIGINT, Ray asks this process to save and end.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _wait_for_lock(task)
        if result_of(task) is None:
            outcome = _train(task)
            if outcome.reason == "interrupted":
                return {"state": "interrupted"}
            _evaluate(task, outcome.reason)
    except Diverged as error:
        return {"state": "diverged", "reason": str(error)}
    except RunError as error:
        return {"state": "failed", "reason": str(error)}
    except OSError as error:
        return {"state": "failed", "reason": f"{task.folder}: {error.strerror or error}"}
    return {"state": "done"}


def _wait_for_lock(task: Task) -> None:
    """Wait until no process holds the run's lock; raises RunError after `patience` seconds."""
    lock = Lock(task.folder / "run.lock")
    end = time.monotonic() + task.patience
    while (holder := lock.holder()) is not None:
        if time.monotonic() > end:
            raise RunError(f"{task.folder}: in use by {holder}")
        time.sleep(0.3)


def _train(task: Task) -> Outcome:
    if (task.folder / "config.yaml").exists():
        return resume(task.folder)
    return start(run_config.from_yaml(task.config_text, task.folder.name), task.folder)


def _evaluate(task: Task, reason: str) -> None:
    has_noise = open_run(task.folder).config.exploration.has_noise
    # Games of an agent without noise are the same either way.
    noise = [one for one in task.noise if one == "off" or has_noise] or ["off"]
    mean_return = None
    for line in read_metrics(task.folder):
        mean_return = line.get("game/mean_return", mean_return)
    result = {
        "step": checkpoint_step(task.folder),
        "reason": reason,
        "episodes": task.episodes,
        "noise": list(task.noise),
        "training_mean_return": mean_return,
        "evaluations": {
            one: evaluate_run(task.folder, episodes=task.episodes, noise=one == "on")
            for one in noise
        },
    }
    write_atomically(task.folder / RESULT, json.dumps(result) + "\n")


def write_atomically(file: Path, text: str) -> None:
    """Write a file as a whole or not at all; raises RunError if it cannot be written."""
    with writing(file):
        replace_file(file, text.encode())


def result_of(task: Task) -> dict[str, Any] | None:
    """Read a finished trial's result; None if there is none that fits this task.

    A result with other noise or another number of games, or of an earlier checkpoint, does not fit.
    """
    try:
        result = json.loads(read_file(task.folder / RESULT))
    except (OSError, ValueError, RecursionError):
        return None
    if problem_of(_Result, result) is not None:
        return None
    asked = [task.episodes, list(task.noise), checkpoint_step(task.folder)]
    return result if [result["episodes"], result["noise"], result["step"]] == asked else None


def checkpoint_step(folder: Path) -> int:
    """Return the step of a run's newest checkpoint, by its name; 0 without a checkpoint."""
    return checkpoint.newest_step(folder / "checkpoints") or 0


def reached_step(folder: Path) -> int:
    """Return a run's latest step, by its last whole line of metrics and its newest checkpoint."""
    line = newest_line(folder)
    return max(0 if line is None else line["step"], checkpoint_step(folder))


def training_seconds(folder: Path) -> float | None:
    """Return a run's training time by the last whole line of its metrics; None without one."""
    line = newest_line(folder)
    return None if line is None else line.get("time/elapsed")


def lock_time(folder: Path) -> int | None:
    """Return when a process last took the run's lock, in nanoseconds by the folder's clock."""
    try:
        return (folder / "run.lock").stat().st_mtime_ns
    except OSError:
        return None


def mismatch(folder: Path, wanted: Config) -> str | None:
    """Return an error if a folder's run has another config than the suite's trial, else None."""
    if not (folder / "config.yaml").exists():
        return None
    try:
        have, want = (_fields(one) for one in (open_run(folder).config, wanted))
    except RunError as error:
        return str(error)
    different = [
        f"{name} {shown(have.get(name))} (the suite: {shown(value)})"
        for name, value in want.items()
        # Where the suite has `auto`, the run has what was chosen on its machine.
        if have.get(name) != value and value != "auto"
    ]
    if not different:
        return None
    return f"{folder}: was started with {', '.join(different)}: choose another --out, or a variant"


def _fields(config: Config) -> Mapping[str, Any]:
    sections = config.by_section().values()
    return {name: value for section in sections for name, value in section.items()}
