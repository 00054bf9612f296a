"""The paths that training can take on a GPU, each measured in its own process."""

from __future__ import annotations

import multiprocessing
import queue
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..training.parts import time_parts


@dataclass(frozen=True)
class TrainingPath:
    """A preset, and the fields that say how its updates are made."""

    preset: str
    fields: dict[str, Any]
    unmeasured: int
    """The first agent steps of learning, not timed because of captures and allocations."""


_PONG = {"warmup_steps": 2_000, "log_every": 50, "replay_capacity": 50_000}
_PQN = {"log_every": 256}
_BTR = {"warmup_steps": 20_000, "log_every": 20, "replay_capacity": 200_000}
PATHS: dict[str, TrainingPath] = {
    "pong: plain, replay on the host": TrainingPath(
        "pong", {**_PONG, "execution": "plain", "replay_device": "host"}, 1_000
    ),
    "pong: plain, replay on the device": TrainingPath(
        "pong", {**_PONG, "execution": "plain", "replay_device": "device"}, 1_000
    ),
    "pong: graph, replay on the host": TrainingPath(
        "pong", {**_PONG, "execution": "graph", "replay_device": "host"}, 1_000
    ),
    "pong: graph, replay on the device": TrainingPath(
        "pong", {**_PONG, "execution": "graph", "replay_device": "device"}, 1_000
    ),
    "pong: graph, device, overlap, 16 environments": TrainingPath(
        "pong",
        {
            **_PONG, "execution": "graph", "replay_device": "device", "overlap": True,
            "environments": 16,
        },
        1_000,
    ),
    "pqn-pong: plain": TrainingPath("pqn-pong", {**_PQN, "execution": "plain"}, 8_000),
    "pqn-pong: graph": TrainingPath("pqn-pong", {**_PQN, "execution": "graph"}, 8_000),
    "btr: plain, replay on the host": TrainingPath(
        "btr", {**_BTR, "execution": "plain", "replay_device": "host"}, 2_000
    ),
    "btr: graph, replay on the device": TrainingPath(
        "btr", {**_BTR, "execution": "graph", "replay_device": "device"}, 2_000
    ),
}  # fmt: skip
_BRIEF = {
    "pong": {"warmup_steps": 100, "log_every": 2, "batch_size": 8, "replay_capacity": 1_000},
    "pqn-pong": {"log_every": 2, "environments": 4, "rollout_steps": 8, "minibatches": 2},
    "btr": {
        "warmup_steps": 100, "log_every": 2, "batch_size": 8, "replay_capacity": 1_000,
        "environments": 4, "update_every": 4, "torso_width": 0.25, "head_hidden": 16,
    },
}  # fmt: skip
"""Sizes with which each runs in seconds without a GPU, to see that it works."""


def run_path(
    name: str, device: str, threads: int, seconds: float, *, brief: bool = False
) -> dict[str, Any]:
    """Train along a path for some seconds of learning; return its rates, or why it `failed`."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    arguments = (name, device, threads, seconds, brief, answers)
    process = context.Process(target=_serve, args=arguments, daemon=True)
    process.start()
    answer: dict[str, Any] | None = None
    end = time.perf_counter() + 6 * seconds + 120
    while answer is None and time.perf_counter() < end:
        try:
            answer = answers.get(timeout=1.0)
        except queue.Empty:
            if not process.is_alive():
                break
    if answer is None and process.is_alive():
        process.kill()
    process.join()
    return answer or {"failed": f"its process ended with status {process.exitcode}"}


def _serve(
    name: str,
    device: str,
    threads: int,
    seconds: float,
    brief: bool,
    answers: multiprocessing.Queue[Any],
) -> None:
    try:
        answers.put(measure(PATHS[name], device, threads, seconds, brief=brief))
    except Exception as error:  # noqa: BLE001 - the parent reports it, whatever it is
        answers.put({"failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"})


def measure(
    path: TrainingPath, device: str, threads: int, seconds: float, *, brief: bool
) -> dict[str, Any]:
    """Train, and measure once learning has begun and the unmeasured steps are over."""
    from noisynet.assemble import train
    from noisynet.runs import RunFolder, config
    from noisynet.training import FiguresTaken

    sizes = path.fields | (_BRIEF[path.preset] if brief else {})
    here = {"device": device, "threads": threads, "checkpoint_every": 10**8}
    chosen = config.load(path.preset, {**here, **sizes})
    begins_at = 0 if brief else path.unmeasured
    if chosen.learning.has_replay:
        begins_at += chosen.learning.warmup_steps
    spent = time_parts()
    begin: tuple[float, int, float] | None = None
    last: tuple[float, int, float] | None = None
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        with closing(train(chosen, run)) as events:
            for event in events:
                if not isinstance(event, FiguresTaken):
                    continue
                # Figures are read from the device, so that everything before them is done.
                last = (time.perf_counter(), event.step, event.figures["updates"])
                if begin is None and event.step >= begins_at:
                    begin = last
                    spent.clear()
                if begin is not None and last[0] - begin[0] >= seconds:
                    break
        opened = RunFolder.open(run)
        precision = config.from_yaml(opened.config_text, str(run)).training.precision
    assert begin is not None, "learning began"
    assert last is not None, "figures were taken"
    took = last[0] - begin[0]
    shares = {part: share / took for part, share in spent.items()}
    if not chosen.training.overlap:
        shares["the rest"] = 1 - sum(shares.values())
    return {
        "steps_per_second": (last[1] - begin[1]) / took,
        "updates_per_second": (last[2] - begin[2]) / took,
        "precision": precision,
        "parts": shares,
    }
