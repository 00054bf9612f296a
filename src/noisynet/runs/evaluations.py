"""The evaluations of a run: one line of evaluations.jsonl for each, beside the metrics.

Training neither reads nor writes this file, so a run may be evaluated while it trains.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..disk import open_regular, read_file

FILE_NAME = "evaluations.jsonl"


@dataclass(frozen=True)
class Evaluation:
    """Whole games that the agent of a checkpoint played without learning."""

    step: int
    """Agent steps taken before the checkpoint."""
    noise: str
    """off: the mean weights; on: a new draw at every step; mean:K: the mean over K draws."""
    returns: tuple[float, ...]
    """The return of each game, from unclipped rewards."""

    @property
    def mean(self) -> float:
        """The mean return."""
        return sum(self.returns) / len(self.returns)


def keep_evaluation(folder: Path, result: Mapping[str, Any]) -> None:
    """Append what `evaluate_run` returned to a run's evaluations; raises OSError if that fails.

    If a full disk or a kill has left half a line at the end, the new line is still whole.
    """
    line = json.dumps(dict(result)).encode() + b"\n"
    descriptor = open_regular(folder / FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        end = os.fstat(descriptor).st_size
        if end and os.pread(descriptor, 1, end - 1) != b"\n":
            line = b"\n" + line
        if os.write(descriptor, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)


def read_evaluations(folder: Path) -> list[Evaluation]:
    """Return an evaluation of each step and noise, in the order in which they were made.

    It is the one with the most games, and of equally many games the newest. Damaged lines are left
    out, and a file that cannot be read counts as empty.
    """
    try:
        lines = read_file(folder / FILE_NAME).splitlines()
    except OSError:
        return []
    found: dict[tuple[int, str], Evaluation] = {}
    for line in lines:
        one = _read(line)
        if one is None:
            continue
        former = found.get((one.step, one.noise))
        if former is None or len(one.returns) >= len(former.returns):
            found.pop((one.step, one.noise), None)
            found[one.step, one.noise] = one
    return list(found.values())


def newest_by_noise(evaluations: list[Evaluation]) -> dict[str, Evaluation]:
    """Return {noise: evaluation} of the newest step evaluated with more than one `noise`.

    In the order off, on, mean:K; empty if there is no such step.
    """
    steps: dict[int, dict[str, Evaluation]] = {}
    for one in evaluations:
        steps.setdefault(one.step, {})[one.noise] = one
    several = [step for step, kinds in steps.items() if len(kinds) > 1]
    if not several:
        return {}
    newest = steps[max(several)]

    def order(noise: str) -> tuple[int, str]:
        return {"off": 0, "on": 1}.get(noise, 2), noise

    return {noise: newest[noise] for noise in sorted(newest, key=order)}


def _read(line: bytes) -> Evaluation | None:
    try:
        values = json.loads(line)
        step, noise, returns = values["step"], values["noise"], values["returns"]
        numbers = tuple(float(one) for one in returns)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    whole = type(step) is int and isinstance(noise, str) and isinstance(returns, list)
    if not whole or not numbers or not all(map(math.isfinite, numbers)):
        return None
    return Evaluation(step, noise, numbers)
