"""An estimate of a large suite's cost, measured in a few seconds on this machine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..assemble import train
from ..runs.config import Config
from ..training import FiguresTaken, TrainingEnded
from .display import duration
from .trials import Trial

LARGE_STEPS = 500_000_000
"""The least agent steps of a large suite, which is estimated first and must be confirmed."""

_SECONDS = 8.0
_FOREVER = 2_000_000_000


def steps_per_second(config: Config, seconds: float = _SECONDS) -> float:
    """Measure the agent steps per second that a config's training makes on this machine.

    The first second is not timed. The warm-up is short and the replay small, so that what is timed
    is acting and learning, as after a full warm-up. Raises KeyboardInterrupt when training stops
    for an interrupt.
    """
    learning = config.learning
    small = config.replaced(
        steps=_FOREVER,
        warmup_steps=max(
            learning.batch_size, 8 * learning.n_step * config.environment.environments
        ),
        replay_capacity=min(learning.replay_capacity, max(10_000, learning.batch_size)),
        checkpoint_every=_FOREVER,
        log_every=1,
        solved_return=None,
    )
    # The times at which the updates of a step began: a rollout of many steps has many updates.
    marks: list[tuple[float, int]] = []
    timed = 0
    with tempfile.TemporaryDirectory() as folder:
        for event in train(small, Path(folder) / "run"):
            if isinstance(event, TrainingEnded):
                raise KeyboardInterrupt
            if not isinstance(event, FiguresTaken) or (marks and event.step == marks[-1][1]):
                continue
            now = time.perf_counter()
            marks.append((now, event.step))
            timed += now >= marks[0][0] + 1.0
            if timed > 1 and now >= marks[-timed][0] + seconds:
                break
    (began, before), (ended, after) = marks[-timed], marks[-1]
    return (after - before) / (ended - began)


def measure(trials: Sequence[Trial]) -> dict[str, float]:
    """Measure the steps per second of each label, by its first trial."""
    first = {trial.label: trial for trial in reversed(trials)}
    return {
        label: steps_per_second(first[label].config)
        for label in dict.fromkeys(trial.label for trial in trials)
    }


def frames_of(trials: Sequence[Trial], steps: Mapping[str, int]) -> int:
    """Count the emulator frames of each trial's agent steps; trials off Atari have none."""
    return sum(
        steps[trial.name] * trial.config.environment.frame_skip
        for trial in trials
        if trial.config.environment.is_atari
    )


def estimate(
    trials: Sequence[Trial],
    left: Mapping[str, int],
    speeds: Mapping[str, float],
    *,
    at_once: int | None,
    points: int = 1,
) -> list[str]:
    """Return lines of text that estimate the cost of the trials.

    `left` has the agent steps that each trial still has to take, `speeds` the steps per second of
    each label, from `measure`. `at_once` is the number of trials that run at the same time, None if
    it is unknown, and `points` how often a search runs such trials.
    """
    count = points * sum(map(bool, left.values()))
    frames = points * frames_of(trials, left)
    said = f"{count} trials still have {points * sum(left.values()):,} steps to take"
    lines = [said + (f" ({frames:,} frames)" if frames else "")]
    seconds = 0.0
    for label, speed in speeds.items():
        members = [trial for trial in trials if trial.label == label]
        threads = members[0].config.training.threads
        lines.append(
            f"{label}: {speed:,.0f} steps/s, measured here in {_SECONDS:g} s of "
            f"{members[0].game} with {threads} thread{'s' * (threads != 1)}"
        )
        seconds += points * sum(left[trial.name] for trial in members) / speed
    lines.append(f"At that speed: {duration(seconds)} one after the other")
    together = min(at_once or 1, count)
    if together > 1:
        lines.append(
            f"{together} at the same time, if none slows another: {duration(seconds / together)}"
        )
    size = points * sum(map(_replay_bytes, (trial.config for trial in trials)))
    if size:
        lines.append(f"Replays on disk: up to {size / 1e9:,.0f} GB for all trials together")
    return lines


def _replay_bytes(config: Config) -> int:
    """Count the bytes of a run's stored frames: its largest part on disk."""
    if not config.learning.has_replay or not config.environment.is_atari:
        return 0
    section = config.environment
    return config.learning.replay_capacity * section.frame_height * section.frame_width
