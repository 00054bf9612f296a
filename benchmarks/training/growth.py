"""Measure how cost grows: with a run's length, and with environments, batch, network and replay.

    python -m benchmarks.training.growth --machine "…"             six minutes on two cores
    python -m benchmarks.training.growth --only length --seconds 900

- `length`: a run of up to a million steps, cut off after some seconds. A step does little work on
  purpose (CartPole, one update for 64 steps), so that anything that grows with the run shows. Speed
  and memory are given for equal parts of the run, from when the replay is full.
- the rest: Pong with its Nature network, one size changed at a time. Sizes take turns, so that a
  slow minute of a shared machine affects all alike; figures are medians.

Each part is written to results/training/growth.json as soon as it is measured, and is not measured
again on the same commit without --anew; growth.md is the table. Use an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from noisynet.assemble import make_environments, train
from noisynet.replay import FrameReplay, PrioritySettings
from noisynet.runs import Config, config
from noisynet.training import FiguresTaken

from ..provenance import RESULTS, current_commit, machine_in_words, provenance, write_json
from ..tables import markdown_table
from .made_up import SHAPE, made_up_batch, pong_agent

FOLDER = RESULTS / "training"
LENGTH = {
    "steps": 1_000_000, "environments": 16, "batch_size": 32, "update_every": 64,
    "replay_capacity": 20_000, "warmup_steps": 1_000, "target_every": 6_400, "log_every": 50,
    "checkpoint_every": 100_000,
}  # fmt: skip
PARTS = 10  # equal parts of the run's length, each with its speed and memory
ENVIRONMENTS = (1, 2, 4, 8, 16)
BATCHES = (16, 32, 64, 128, 256)
HIDDEN = (128, 256, 512, 1024)
CAPACITIES = (10_000, 50_000, 200_000)

Costs = Mapping[str, Callable[[], object]]


def memory_mb() -> dict[str, float]:
    """Return the memory of this process in MB: its own, and that of the files it has mapped."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines if line.startswith("Rss"))
    return {
        name: int(found[key].split()[0]) / 1024
        for name, key in (("own", "RssAnon"), ("files", "RssFile"))
    }


def settings(threads: int, **overrides: Any) -> Config:
    """Build Pong's config; the precision is float32, so that machines can be compared."""
    chosen = {"device": "cpu", "precision": "float32", "threads": threads, **overrides}
    return config.load("pong", chosen)


def take_turns(costs: Costs, seconds: float) -> dict[str, float]:
    """Return the median time of each call in ms; the calls take turns for `seconds` in all."""
    times: dict[str, list[float]] = {name: [] for name in costs}
    for _ in range(2):
        for call in costs.values():
            call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 3:
        for name, call in costs.items():
            began = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - began)
    return {name: 1e3 * statistics.median(spent) for name, spent in times.items()}


def measure_length(threads: int, seconds: float) -> dict[str, Any]:
    """Train until the time is up; return steps/s and memory in equal parts of the run.

    The parts begin when the replay is full.
    """
    chosen = config.load(
        "cartpole", {**LENGTH, "threads": threads, "device": "cpu", "precision": "float32"}
    )
    marks: list[tuple[int, float, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with closing(train(chosen, Path(folder) / "run")) as events:
            for event in events:
                if not isinstance(event, FiguresTaken):
                    continue
                if event.step >= chosen.learning.replay_capacity:
                    marks.append((event.step, time.perf_counter() - began, memory_mb()))
                if time.perf_counter() - began >= seconds:
                    break
    if len(marks) <= PARTS:
        raise SystemExit(
            f"length: the replay was hardly full after {seconds:g} s; give more --seconds"
        )
    cuts = [marks[place] for place in np.linspace(0, len(marks) - 1, PARTS + 1).astype(int)]
    parts = [
        {
            "from_step": before[0],
            "to_step": after[0],
            "steps_per_second": (after[0] - before[0]) / (after[1] - before[1]),
            "own_mb": after[2]["own"],
            "files_mb": after[2]["files"],
        }
        for before, after in pairwise(cuts)
    ]
    third = max(1, PARTS // 3)
    speeds = [part["steps_per_second"] for part in parts]
    return {
        "settings": LENGTH,
        "parts": parts,
        "last_by_first_third": statistics.median(speeds[-third:])
        / statistics.median(speeds[:third]),
        "own_mb_grown": parts[-1]["own_mb"] - cuts[0][2]["own"],
    }


def measure_environments(threads: int, seconds: float) -> dict[str, Any]:
    """Time a vector step of Pong and the choice of its actions, by the number of environments."""
    games = {
        count: make_environments(settings(threads, environments=count)) for count in ENVIRONMENTS
    }
    costs: dict[str, Callable[[], object]] = {}
    for count, environments in games.items():
        agent = pong_agent(settings(threads, environments=count))
        observation, first = environments.reset(), np.zeros(count, bool)
        action = np.zeros(count, np.int64)
        costs[f"step {count}"] = lambda games=environments, action=action: games.step(action)
        costs[f"act {count}"] = lambda agent=agent, seen=observation, first=first: agent.act(
            seen, 10**6, first
        )
    try:
        found = take_turns(costs, seconds)
    finally:
        for environments in games.values():
            environments.close()
    rows = [
        {
            "environments": count,
            "step_ms": found[f"step {count}"],
            "act_ms": found[f"act {count}"],
            "ms_per_agent_step": (found[f"step {count}"] + found[f"act {count}"]) / count,
        }
        for count in ENVIRONMENTS
    ]
    return {"rows": rows}


def measure_batch(threads: int, seconds: float) -> dict[str, Any]:
    """Time an update, by the size of the batch."""
    agents = {size: pong_agent(settings(threads)) for size in BATCHES}
    batches = {size: made_up_batch(size) for size in BATCHES}
    costs = {str(size): lambda size=size: agents[size].update(batches[size]) for size in BATCHES}
    found = take_turns(costs, seconds)
    rows = [
        {
            "batch": size,
            "update_ms": found[str(size)],
            "samples_per_second": 1e3 * size / found[str(size)],
        }
        for size in BATCHES
    ]
    return {"rows": rows}


def measure_network(threads: int, seconds: float) -> dict[str, Any]:
    """Time an update of 32, by the width of the noisy hidden layers."""
    agents = {size: pong_agent(settings(threads, head_hidden=size)) for size in HIDDEN}
    batch = made_up_batch(32)
    costs = {str(size): lambda agent=agent: agent.update(batch) for size, agent in agents.items()}
    found = take_turns(costs, seconds)
    rows = [
        {
            "head_hidden": size,
            "parameters": sum(one.numel() for one in agent.online.parameters()),
            "update_ms": found[str(size)],
        }
        for size, agent in agents.items()
    ]
    return {"rows": rows}


def filled_replay(capacity: int, priority: PrioritySettings | None) -> FrameReplay:
    """Fill a replay in memory with random frames."""
    replay = FrameReplay(
        capacity=capacity, environments=8, frame_shape=SHAPE[1:], frame_dtype=np.uint8, stack=4,
        slack=0, seed=0, priority=priority,
    )  # fmt: skip
    generator = np.random.Generator(np.random.PCG64(0))
    frames = generator.integers(0, 256, (64, 8, *SHAPE[1:]), np.uint8)
    none, action, reward = np.zeros(8, bool), np.zeros(8, np.int64), np.zeros(8, np.float32)
    for number in range(capacity // 8):
        ended = generator.random(8) < 0.001
        replay.add(frames[number % 64], action, reward, ended, none, none, none)
    return replay


def measure_replay(_threads: int, seconds: float) -> dict[str, Any]:
    """Time a sample of 32, uniform and by priority, by the capacity of a full replay."""
    priority = PrioritySettings(exponent=0.5, epsilon=1e-6)
    rows: list[dict[str, float]] = []
    # One replay after the other: the largest takes gigabytes.
    for capacity in CAPACITIES:
        row: dict[str, float] = {"capacity": capacity}
        for name, chosen, beta in (("uniform", None, None), ("priority", priority, 0.4)):
            replay = filled_replay(capacity, chosen)
            out = replay.sample(32, 3, 0.99, beta=beta)
            cost = {
                name: lambda replay=replay, out=out, beta=beta: replay.sample(
                    32, 3, 0.99, out=out, beta=beta
                )
            }
            row[f"{name}_ms"] = take_turns(cost, seconds / (2 * len(CAPACITIES)))[name]
            row["mb"] = replay.nbytes / 2**20
        rows.append(row)
    return {"rows": rows}


MEASURES: dict[str, tuple[Callable[[int, float], dict[str, Any]], float]] = {
    "length": (measure_length, 190.0),
    "environments": (measure_environments, 30.0),
    "batch": (measure_batch, 40.0),
    "network": (measure_network, 30.0),
    "replay": (measure_replay, 15.0),
}


def markdown(result: Mapping[str, Any]) -> str:
    """Write a table for each part that has been measured."""
    lines: list[str] = []
    for name, part in result["parts"].items():
        lines += [f"### {name}", ""]
        rows = part.get("rows") or part["parts"]
        lines += markdown_table(
            [key.replace("_", " ") for key in rows[0]],
            [[_number(value) for value in row.values()] for row in rows],
        )
        if "last_by_first_third" in part:
            ratio, grown = part["last_by_first_third"], part["own_mb_grown"]
            lines += ["", f"Speed of the last third relative to the first: {ratio:.3f}."]
            lines += [f"Growth of the process's own memory: {grown:.1f} MB."]
        lines += ["", f"Commit {part['commit']}, {part['date']}, {part['machine']}.", ""]
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{round(value, 3):,g}" if value < 1e3 else f"{value:,.0f}"


def main() -> None:
    """Measure what has not been measured yet; save and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", default=machine_in_words())
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="+", choices=list(MEASURES), default=list(MEASURES))
    parser.add_argument("--seconds", type=float, default=None, help="seconds for each part")
    parser.add_argument("--anew", action="store_true", help="measure again even on the same commit")
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    file = arguments.out / "growth.json"
    result: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"parts": {}}
    commit = current_commit()
    for name in arguments.only:
        known = result["parts"].get(name)
        if known is not None and known["commit"] == commit and not arguments.anew:
            print(f"{name}: measured already", flush=True)
            continue
        measure, seconds = MEASURES[name]
        began = time.perf_counter()
        found = measure(arguments.threads, arguments.seconds or seconds)
        result["parts"][name] = {
            **provenance(arguments.machine, commit),
            "threads": arguments.threads,
            **found,
        }
        write_json(file, result)
        file.with_suffix(".md").write_text(markdown(result))
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    print(markdown(result))


if __name__ == "__main__":
    main()
