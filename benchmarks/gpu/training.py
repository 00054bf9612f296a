"""Measure training on a GPU: an update by itself, whole training, and the time to solve Pong.

    python -m benchmarks.gpu.training --machine "…"       eight minutes on one GPU
    python -m benchmarks.gpu.training --only updates training

- `updates`: milliseconds of an update of Pong's agent, plain and as a CUDA graph, in float32 and
  bfloat16, by the size of the batch, many in a row before the clock is read.
- `training`: steps/s and updates/s of whole training on Pong once learning has begun, for each path
  of paths.py, or those that --paths names. Each path runs in its own process, in turns. Also the
  share of the time that each part of the loop takes; acting waits for the updates before it, so the
  GPU's time shows there.
- `solve`: the wall time until the mean return of the last 100 training games is 18, for each seed
  of --preset with the fields of --solve-with, from the first line of Python that builds the run; if
  it is not reached in time, the best mean so far.

Each part is written to training.json as soon as it is measured, and training.md is the table, both
under results/gpu. With --device cpu --brief everything runs without a GPU, to see that it works;
give another --out then.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from noisynet.agents import QLearning, StaticUpdates
from noisynet.assemble import train
from noisynet.runs import Config, config
from noisynet.training import GameFinished, TrainingEnded

from ..provenance import RESULTS, provenance, write_json
from ..tables import markdown_table
from ..training.made_up import made_up_batch, pong_agent
from .paths import PATHS, run_path

FOLDER = RESULTS / "gpu"
BATCHES = (32, 64, 256, 512)


def wait_for(device: str) -> None:
    """Wait until the device has done its work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _updates(chosen: Config) -> QLearning | StaticUpdates:
    """Build a new agent; if the config's execution is `graph`, its updates run as a CUDA graph."""
    agent = pong_agent(chosen)
    return StaticUpdates(agent) if chosen.training.execution == "graph" else agent


def measure_updates(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time updates of each kind, in turns."""
    rows: list[dict[str, Any]] = []
    for size in BATCHES[:1] if arguments.brief else BATCHES:
        batch = made_up_batch(size, arguments.device)
        kinds: dict[tuple[str, str], Any] = {}
        for execution in ("plain", "graph"):
            for precision in ("float32", "bfloat16"):
                chosen = config.load(
                    "pong",
                    {
                        "device": arguments.device, "threads": arguments.threads,
                        "batch_size": size, "execution": execution, "precision": precision,
                    },
                )  # fmt: skip
                updates = _updates(chosen)
                for _ in range(6 if arguments.device.startswith("cuda") else 1):
                    updates.update(batch)
                kinds[execution, precision] = updates
        times: dict[tuple[str, str], list[float]] = {kind: [] for kind in kinds}
        for _ in range(arguments.rounds):
            for kind, updates in kinds.items():
                wait_for(arguments.device)
                began = time.perf_counter()
                for _ in range(arguments.updates):
                    updates.update(batch)
                wait_for(arguments.device)
                times[kind].append((time.perf_counter() - began) / arguments.updates)
        rows += [
            {
                "batch": size,
                "execution": execution,
                "precision": precision,
                "update_ms": 1e3 * statistics.median(spent),
                "samples_per_second": size / statistics.median(spent),
            }
            for (execution, precision), spent in times.items()
        ]
    return {"rows": rows}


def measure_training(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train along each path, in turns; a path that fails reports why, and the others continue."""
    chosen = [
        name for name in PATHS if not arguments.paths or name.startswith(tuple(arguments.paths))
    ]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    failed: dict[str, str] = {}
    for _ in range(arguments.turns):
        for name in chosen:
            if name in failed:
                continue
            rates = run_path(
                name, arguments.device, arguments.threads, arguments.seconds, brief=arguments.brief
            )
            if "failed" in rates:
                failed[name] = rates["failed"]
            else:
                found[name].append(rates)
    rows = [
        {
            "path": name,
            "steps_per_second": statistics.median(one["steps_per_second"] for one in turns),
            "updates_per_second": statistics.median(one["updates_per_second"] for one in turns),
            "precision": turns[-1]["precision"],
            "parts": turns[-1]["parts"],
        }
        for name, turns in found.items()
        if turns
    ]
    return {"rows": rows, "failed": failed}


def measure_solve(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train each seed of the preset until it is solved or its time is up."""
    overrides = dict(one.split("=", 1) for one in arguments.solve_with)
    rows: list[dict[str, Any]] = []
    curves: dict[str, list[tuple[float, int, float]]] = {}
    for seed in arguments.seeds:
        limit = arguments.solve_seconds
        if arguments.within is not None:
            limit = min(limit, arguments.within - (time.perf_counter() - arguments.began))
        if limit <= 0:
            break
        chosen = config.load(
            arguments.preset,
            {"device": arguments.device, "threads": arguments.threads, "seed": seed}
            | {name: json.loads(value) for name, value in overrides.items()},
        )
        row, curve = _solve(chosen, limit)
        with_fields = " ".join(arguments.solve_with) or "nothing else"
        rows.append({"preset": arguments.preset, "seed": seed, "with": with_fields, **row})
        curves[str(seed)] = curve
    return {"rows": rows, "curves": curves}


def _solve(chosen: Config, limit: float) -> tuple[dict[str, Any], list[tuple[float, int, float]]]:
    """Train until the task is solved, for at most `limit` seconds; return a row and the curve."""
    best, reason, step, mean, played = float("-inf"), "time", 0, None, 0.0
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        curve: list[tuple[float, int, float]] = []
        with closing(train(chosen, Path(folder) / "run")) as events:
            for event in events:
                took = time.perf_counter() - began
                step = event.step
                played = played or took
                if isinstance(event, GameFinished):
                    mean = event.mean_return
                    if event.games == chosen.training.solved_games:
                        best = max(best, mean)
                    curve.append((round(took, 1), step, round(mean, 2)))
                if isinstance(event, TrainingEnded):
                    reason = event.reason
                if took >= limit:
                    break
        took = time.perf_counter() - began
    row = {
        "ended": reason,
        "seconds": took,
        "seconds_to_first_event": played,
        "steps": step,
        "last_mean_return": mean,
        "best_mean_of_100": None if best == float("-inf") else best,
    }
    return row, curve[:: max(1, len(curve) // 50)]


MEASURES = {"updates": measure_updates, "training": measure_training, "solve": measure_solve}


def cell(value: object) -> str:
    """Return a value of a table as text."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {share:.0%}" for name, share in value.items())
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e3 else f"{value:.3g}"
    return "" if value is None else str(value)


def markdown(result: dict[str, Any]) -> str:
    """Return a table for each part that has been measured."""
    lines: list[str] = []
    for name, part in result["parts"].items():
        lines += [f"### {name}", ""]
        rows = part["rows"]
        if rows:
            lines += markdown_table(
                [key.replace("_", " ") for key in rows[0]],
                [[cell(value) for value in row.values()] for row in rows],
            )
        lines += [f"{path} failed: {why}" for path, why in part.get("failed", {}).items()]
        lines += ["", f"Commit {part['commit']}, {part['date']}, {part['machine']}.", ""]
    return "\n".join(lines)


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", default=None)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="+", choices=list(MEASURES), default=list(MEASURES))
    parser.add_argument(
        "--updates", type=int, default=100, help="in a row between two readings of the clock"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=20.0, help="for a turn of `training`")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument(
        "--paths", nargs="+", default=[], metavar="START", help="of `training`, by how they begin"
    )
    parser.add_argument("--preset", default="pqn-pong", help="what `solve` trains")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--solve-seconds", type=float, default=240.0)
    parser.add_argument(
        "--solve-with", nargs="*", default=[], metavar="FIELD=VALUE", help="JSON values"
    )
    parser.add_argument(
        "--within", type=float, default=None, help="seconds for all; `solve` gets the rest"
    )
    parser.add_argument("--brief", action="store_true", help="tiny sizes; the figures mean nothing")
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    arguments.began = time.perf_counter()
    for start in arguments.paths:
        if not any(name.startswith(start) for name in PATHS):
            parser.error(
                f"--paths: got {start!r}, expected the start of one of: {'; '.join(PATHS)}"
            )
    # A time limit from outside must end the processes of `training` too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    on_gpu = arguments.device.startswith("cuda")
    if on_gpu and not torch.cuda.is_available():
        raise SystemExit("--device: got cuda, but torch finds no GPU; expected cpu")
    torch.set_num_threads(arguments.threads)
    name = torch.cuda.get_device_name(arguments.device) if on_gpu else "no GPU"
    machine = arguments.machine or f"{name}, {arguments.threads} threads"
    file = arguments.out / "training.json"
    result: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"parts": {}}
    for part in arguments.only:
        result["parts"][part] = {
            **provenance(machine),
            "torch": torch.__version__,
            "numpy": np.__version__,
            **MEASURES[part](arguments),
        }
        write_json(file, result)
        file.with_suffix(".md").write_text(markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
