"""Steps and updates a second with 1, 2, 4 … sampler actors, and what travels between processes.

    python benchmarks/scale.py --machine "…"                    cartpole and pong, actors that fit
    python benchmarks/scale.py --presets pong --actors 1 2 4 8 --seconds 60 --machine "…"
    python benchmarks/scale.py --only "ray, 1, playing" --machine "…"    the others stay as they are
    python benchmarks/scale.py --tiny                           seconds each, written nowhere

Each contender trains for `--seconds` after its start and first updates, which are not timed: the
plain run, where one process plays and learns; a sampler in that process; and Ray actors, with the
replay beside the learner and in a shard of its own. "Playing" is a sampler whose learner has next
to nothing to do, an update for 400 steps: how fast one sampler is. Each sampler has as many
environments as the plain run. Overhead is that of the same cores: the processor time of all
processes per step, beside the plain run's. Writes
benchmarks/results/scale/scale.json and table.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from provenance import current_commit

from noisynet.runs import Config, config
from noisynet.samplers import assembler as actors
from noisynet.training import Event, FiguresTaken, train

RESULTS = Path(__file__).parent / "results" / "scale"
FLOW = ("scale/staleness", "scale/fragment_bytes_per_step", "scale/weight_bytes_per_step")
ENDLESS = 2_000_000_000


def settings(preset: str, tiny: bool) -> dict[str, Any]:
    """Let learning begin soon and go on: what is timed is acting and learning side by side."""
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
    """Give the processor time of this process and of every process below it."""
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
    """Name every way of training, with its config."""
    base = settings(preset, tiny)
    yield "one process", config.load(preset, base)
    yield "in-process", config.load(preset, {**base, "actors": 1, "backend": "in-process"})
    for count in counts:
        yield f"ray, {count}", config.load(preset, {**base, "actors": count})
    yield "ray, 1, shard", config.load(preset, {**base, "actors": 1, "replay_shards": 1})
    rarely = {"update_every": 400, "log_every": 1}
    yield "ray, 1, playing", config.load(preset, {**base, **rarely, "actors": 1})


def run(chosen: Config, seconds: float) -> dict[str, float]:
    """Train in a folder that goes away, and measure."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        beside = actors.train if chosen.scale.actors else train
        events = beside(chosen, path)
        try:
            return measure(events, seconds)
        finally:
            events.close()


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Write a table of each preset."""
    lines: list[str] = []
    for preset, rows in results.items():
        alone = rows["one process"]
        heads = (
            "samplers", "steps/s", "updates/s", "CPU µs a step", "× one process", "staleness",
            "fragment bytes a step", "weight bytes a step",
        )  # fmt: skip
        lines += [f"### {preset}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
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
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="How do runs with sampler actors grow?")
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
        results = json.loads((RESULTS / "scale.json").read_text())["results"]
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
    RESULTS.mkdir(parents=True, exist_ok=True)
    record = {
        "commit": current_commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": arguments.machine,
        "cores": cores,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "results": results,
    }
    (RESULTS / "scale.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / "table.md").write_text(text)


if __name__ == "__main__":
    main()
