"""Measure steps and updates a second with 1, 2, 4 … sampler actors, and the traffic between them.

    python -m benchmarks.scale.samplers --machine "…"    cartpole and pong, up to an actor per core
    python -m benchmarks.scale.samplers --presets pong --actors 1 2 4 8 --seconds 60 --machine "…"
    python -m benchmarks.scale.samplers --only "ray, 1, playing" --machine "…"    only these rows
    python -m benchmarks.scale.samplers --tiny              seconds each; nothing is written

Each contender trains for `--seconds` after its start and first updates, which are not timed: the
plain run, where one process plays and learns; a sampler in that process; and Ray actors, with the
replay beside the learner and in its own shard. "Playing" is a sampler whose learner has next to
nothing to do (an update for 400 steps), which shows how fast one sampler is. Each sampler has as
many environments as the plain run. Overhead is the processor time of all processes per step, as a
ratio to the plain run's. Writes results/scale/samplers.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from noisynet import samplers
from noisynet.assemble import train
from noisynet.runs import Config, config
from noisynet.training import Event, FiguresTaken

from ..provenance import RESULTS, provenance, write_json
from ..tables import markdown_table

FILE = RESULTS / "scale" / "samplers.json"
FLOW = ("scale/staleness", "scale/fragment_bytes_per_step", "scale/weight_bytes_per_step")
ENDLESS = 2_000_000_000


def settings(preset: str, tiny: bool) -> dict[str, Any]:
    """Return settings with which learning begins soon: acting and learning are timed together."""
    chosen: dict[str, Any] = {
        "steps": ENDLESS, "threads": 1, "device": "cpu", "precision": "float32",
        "checkpoint_every": ENDLESS, "warmup_steps": 1000, "log_every": 20,
    }  # fmt: skip
    if config.load(preset).training.solved_return is not None:
        chosen["solved_return"] = None
    if preset == "pong":
        chosen["replay_capacity"] = 20_000
    if tiny:
        chosen |= {"warmup_steps": 300, "log_every": 5}
    return chosen


def processor_seconds() -> float:
    """Return the processor time of this process and of all its descendants."""
    parents: dict[int, int] = {}
    ticks: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
            ticks[int(entry.name)] = float(fields[11]) + float(fields[12])
    mine = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return sum(ticks.get(pid, 0.0) for pid in mine) / os.sysconf("SC_CLK_TCK")


def measure(events: Iterator[Event], seconds: float) -> dict[str, float]:
    """Time a run between the first figures after the start and those after `seconds`."""
    began: tuple[float, float, int, float] | None = None
    flow: dict[str, list[float]] = {name: [] for name in FLOW}
    for event in events:
        if not isinstance(event, FiguresTaken):
            continue
        now, step, updates = time.perf_counter(), event.step, event.figures["updates"]
        if began is None:
            began = now, processor_seconds(), step, updates
            continue
        for name in FLOW:
            if name in event.figures:
                flow[name].append(event.figures[name])
        if now - began[0] >= seconds:
            took, steps = now - began[0], step - began[2]
            return {
                "seconds": round(took, 2),
                "steps_per_second": round(steps / took, 1),
                "updates_per_second": round((updates - began[3]) / took, 1),
                "processor_microseconds_per_step": round(
                    (processor_seconds() - began[1]) / max(steps, 1) * 1e6, 1
                ),
                **{
                    name.removeprefix("scale/"): round(sum(values) / len(values), 1)
                    for name, values in flow.items()
                    if values
                },
            }
    raise SystemExit("the run ended before it was measured")


def contenders(preset: str, counts: list[int], tiny: bool) -> Iterator[tuple[str, Config]]:
    """Yield every way of training by name, with its config."""
    base = settings(preset, tiny)
    yield "one process", config.load(preset, base)
    yield "in-process", config.load(preset, {**base, "actors": 1, "backend": "in-process"})
    for count in counts:
        yield f"ray, {count}", config.load(preset, {**base, "actors": count})
    yield "ray, 1, shard", config.load(preset, {**base, "actors": 1, "replay_shards": 1})
    rarely = {"update_every": 400, "log_every": 1}
    yield "ray, 1, playing", config.load(preset, {**base, **rarely, "actors": 1})


def run(chosen: Config, seconds: float) -> dict[str, float]:
    """Train in a temporary folder, and measure."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        train_by = samplers.train if chosen.scale.actors else train
        events = train_by(chosen, path)
        try:
            return measure(events, seconds)
        finally:
            events.close()


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return a table for each preset."""
    lines: list[str] = []
    for preset, rows in results.items():
        alone = rows["one process"]
        heads = (
            "samplers", "steps/s", "updates/s", "CPU µs a step", "× one process", "staleness",
            "fragment bytes a step", "weight bytes a step",
        )  # fmt: skip
        lines += [f"### {preset}", ""]
        written: list[list[str]] = []
        for name, row in rows.items():
            cost = row["processor_microseconds_per_step"]
            ratio = cost / alone["processor_microseconds_per_step"]
            cells = [
                name,
                f"{row['steps_per_second']:,.0f}",
                f"{row['updates_per_second']:,.0f}",
                f"{cost:,.0f}",
                f"{ratio:.2f}",
                *(
                    f"{row[tag]:,.0f}" if tag in row else "-"
                    for tag in ("staleness", "fragment_bytes_per_step", "weight_bytes_per_step")
                ),
            ]
            written.append(cells)
        lines += [*markdown_table(heads, written), ""]
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="How do runs scale with sampler actors?")
    parser.add_argument("--machine", default="not said")
    parser.add_argument("--presets", nargs="+", default=["cartpole", "pong"])
    parser.add_argument("--actors", nargs="+", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--only", nargs="+", default=None, help="names of the table's rows")
    parser.add_argument("--tiny", action="store_true", help="a second each; nothing is written")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    counts = arguments.actors or [1 << power for power in range(cores.bit_length())]
    seconds = 1.0 if arguments.tiny else arguments.seconds
    names = {name for name, _ in contenders(arguments.presets[0], counts, arguments.tiny)}
    if unknown := set(arguments.only or ()) - names:
        parser.error(f"--only: got {sorted(unknown)}, expected names among {sorted(names)}")
    results: dict[str, dict[str, dict[str, float]]] = {}
    if arguments.only is not None and not arguments.tiny:
        results = json.loads(FILE.read_text())["results"]
    for preset in arguments.presets:
        results.setdefault(preset, {})
        for name, chosen in contenders(preset, counts, arguments.tiny):
            if arguments.only is not None and name not in arguments.only:
                continue
            results[preset][name] = run(chosen, seconds)
            print(preset, name, results[preset][name], flush=True)
    text = table(results)
    print(text)
    if arguments.tiny:
        return
    record = {
        **provenance(arguments.machine),
        "cores": cores,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "results": results,
    }
    write_json(FILE, record)
    FILE.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
