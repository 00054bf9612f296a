"""The record of a run: its state, and its figures, which are thinned while they are read."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeGuard

from . import checkpoint
from .config import Config
from .curves import Curve, Thinner
from .errors import RunError
from .evaluations import Evaluation, read_evaluations
from .locks import is_locked
from .metrics import read_metrics
from .opening import Run, open_run

_KEPT = ("game/return", "game/mean_return", "loss", "epsilon", "entropy")
_KEPT_FAMILIES = ("snr/", "sigma/", "noise/", "dormant/", "norm/")
_DIVERGED_NAME = re.compile(r"nan_(\d+)")


@dataclass(frozen=True)
class RunRecord:
    """The state and figures of a run. Steps are decisions of the agent, times are seconds."""

    path: Path
    name: str
    """The folder's name; see `named_apart`."""
    config: Config
    state: str
    """running, solved, finished, stopped, diverged, or new, if nothing was trained yet."""
    step: int
    games: int
    mean_return: float | None
    """Mean return of the last games, at most the config's `solved_games`."""
    seconds: float
    """Training time so far."""
    damaged: int
    """Lines of metrics.jsonl that could not be read and were left out."""
    curves: dict[str, Curve]
    evaluations: tuple[Evaluation, ...] = ()
    """The evaluations that `noisynet evaluate` has written to the run's folder."""

    @property
    def game(self) -> str:
        """The environment's id."""
        return self.config.environment.environment

    @property
    def seed(self) -> int:
        """The seed that the run was started with."""
        return self.config.training.seed

    def notes(self) -> list[str]:
        """Return notes for whoever reads its figures: on damaged lines, and on its state."""
        notes: list[str] = []
        if self.damaged:
            notes.append(
                f"{self.name}: {self.damaged} damaged line{'s' * (self.damaged != 1)} of "
                "metrics.jsonl skipped"
            )
        if self.state == "running":
            notes.append(
                f"{self.name} is still being written: this is its state at step {self.step:,}"
            )
        if self.state == "diverged":
            notes.append(f"{self.name}: its loss diverged; what it had learned before is shown")
        return notes

    def tags(self, family: str) -> list[str]:
        """Return the names of the figures of a family, such as `snr/`."""
        return [tag for tag in self.curves if tag.startswith(family)]

    def mean_return_at(self, step: float) -> float | None:
        """Return the mean return of the last games at a step, exactly; None before the first game.

        Curves are thinned: if a bucket may also hold lines after the step, metrics.jsonl is read
        again, line by line.
        """
        curve = self.curves.get("game/mean_return")
        if curve is None:
            return None
        if step >= curve.step[-1] or step in curve.step:
            return curve.at(step)
        latest, found = -1, None
        for line in read_metrics(self.path):
            value = line.get("game/mean_return")
            if _is_number(value) and latest <= line["step"] <= step:
                latest, found = line["step"], float(value)
        return found


def read_run(path: Path) -> RunRecord:
    """Read a run, even while it is being written; raises RunError for anything that is not a run.

    Lines of metrics.jsonl are read one at a time and thinned at once. Damaged lines are left out
    and counted, except half a line at the end of a run that is being written.
    """
    run = open_run(path)
    thinners: defaultdict[str, Thinner] = defaultdict(Thinner)
    step = games = damaged = 0
    seconds, mean_return = 0.0, None
    if run.folder.metrics_file.exists():
        lines = run.metrics()
        for line in lines:
            step = max(step, line["step"])
            figures = {tag: value for tag, value in line.items() if _is_number(value)}
            for tag, value in figures.items():
                if tag in _KEPT or (tag.startswith(_KEPT_FAMILIES) and "/env_" not in tag):
                    thinners[tag].add(line["step"], value)
            if "game/return" in figures:
                games += 1
                mean_return = figures.get("game/mean_return", mean_return)
            seconds = max(seconds, figures.get("time/elapsed", 0.0))
        damaged = lines.damaged
    curves = {tag: curve for tag, one in thinners.items() if (curve := one.curve()) is not None}
    running = is_locked(run.folder.lock_file)
    if running and damaged and not _ends_with_a_line(run.folder.metrics_file):
        damaged -= 1  # the line that is being written
    step = max(step, checkpoint.newest_step(run.folder.checkpoints) or 0)
    mean_return = None if mean_return is None else float(mean_return)
    state = "running" if running else _state(run, step, games, mean_return)
    return RunRecord(
        path,
        path.resolve().name or str(path),
        run.config,
        state,
        step,
        games,
        mean_return,
        float(seconds),
        damaged,
        curves,
        tuple(read_evaluations(path)),
    )


def distinct(paths: Iterable[Path]) -> list[Path]:
    """Return paths without those that name the same folder again, such as `run` and `./run`."""
    found: dict[Path, Path] = {}
    for path in paths:
        found.setdefault(path.resolve(), path)
    return list(found.values())


def named_apart(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Return runs whose names differ: those of one name get the folders above, as `noise/seed1`."""
    folders = [run.path.resolve().parts for run in runs]
    depths = [1] * len(runs)
    for _ in range(max(map(len, folders), default=0)):
        count = Counter(parts[-depth:] for parts, depth in zip(folders, depths, strict=True))
        depths = [
            depth + (count[parts[-depth:]] > 1)
            for parts, depth in zip(folders, depths, strict=True)
        ]
    return [
        run if depth == 1 else replace(run, name="/".join(parts[-depth:]))
        for run, parts, depth in zip(runs, folders, depths, strict=True)
    ]


def find_runs(root: Path) -> list[Path]:
    """List the runs in and under a folder; raises RunError if there is no such folder."""
    if not root.is_dir():
        raise RunError(f"{root}: no such folder")
    found: list[Path] = []
    seen: set[str] = set()  # a link may lead back
    for place, folders, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        if "config.yaml" in files and ("checkpoints" in folders or "metrics.jsonl" in files):
            found.append(Path(place))
            folders.clear()  # a run holds no runs
        folders[:] = sorted(name for name in folders if not name.startswith("."))
    return sorted(found)


def _is_number(value: object) -> TypeGuard[float]:
    return type(value) in (int, float)


def _state(run: Run, step: int, games: int, mean_return: float | None) -> str:
    kept = (_DIVERGED_NAME.match(place.name) for place in run.folder.checkpoints.glob("nan_*"))
    if max((int(name[1]) for name in kept if name), default=0) >= max(step, 1):
        return "diverged"
    training = run.config.training
    if training.solved_by(games, mean_return):
        return "solved"
    if step >= training.steps:
        return "finished"
    return "stopped" if step else "new"


def _ends_with_a_line(file: Path) -> bool:
    with file.open("rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        stream.seek(max(end - 1, 0))
        return stream.read() in (b"", b"\n")
