"""Time prioritised replay on one core: the sum tree alone, and whole calls of the replay.

    python -m benchmarks.training.sum_tree --machine "…"

prints medians in µs and writes results/training/sum_tree.json. The target is for the tree: to
sample and then update 32 of a million priorities within 100 µs.

- `tree`: 32 uniform numbers, `find` and `get`; then `set` of 32 new priorities.
- `replay`: whole calls of `sample`, one after each vector step, so that the tree has to catch up,
  and of `update_priorities`; for comparison, `sample` of a uniform replay. The ring is full: a
  million records of 4 environments, with frames of one byte, since frames cost the same either way.
- `commit_ms`: writing a million priorities to disk.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from noisynet.replay import FrameReplay, PrioritySettings
from noisynet.replay.commit import PrioritySnapshots, create_ring
from noisynet.replay.ring import RingShape
from noisynet.replay.sum_tree import SumTree

from ..provenance import RESULTS, machine_in_words, provenance, write_json

FILE = RESULTS / "training" / "sum_tree.json"
TARGET_US = 100.0
BATCH, N_STEP, ENVIRONMENTS = 32, 3, 4


def spread(values: list[float]) -> dict[str, float]:
    """Return median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 1), "low": round(low, 1), "high": round(high, 1)}


def measure_tree(size: int, repeats: int) -> dict[str, dict[str, float]]:
    """Time sampling and updating of a tree of random priorities."""
    generator = np.random.default_rng(0)
    tree = SumTree(size)
    tree.load(generator.exponential(size=size))
    times: dict[str, list[float]] = {"sample": [], "update": [], "both": []}
    for _ in range(repeats):
        value = generator.exponential(size=BATCH)
        start = time.perf_counter()
        part = np.arange(BATCH) + generator.random(BATCH)
        index = tree.find(part * (tree.total / BATCH))
        _ = tree.get(index)
        middle = time.perf_counter()
        tree.set(index, value)
        end = time.perf_counter()
        times["sample"].append((middle - start) * 1e6)
        times["update"].append((end - middle) * 1e6)
        times["both"].append((end - start) * 1e6)
    return {name: spread(values) for name, values in times.items()}


def full_replay(size: int, priority: PrioritySettings | None) -> FrameReplay:
    """Fill a replay with games of 200 steps."""
    replay = FrameReplay(
        capacity=size,
        environments=ENVIRONMENTS,
        frame_shape=(),
        frame_dtype=np.uint8,
        stack=4,
        slack=0,
        seed=0,
        priority=priority,
    )
    for _ in range(size // ENVIRONMENTS + 50):
        add(replay)
    return replay


def add(replay: FrameReplay) -> None:
    """Add one vector step; every 200 of them are a game."""
    place = replay.head % 201
    no = np.zeros(ENVIRONMENTS, bool)
    replay.add(
        np.zeros(ENVIRONMENTS, np.uint8),
        np.zeros(ENVIRONMENTS, np.int64),
        np.zeros(ENVIRONMENTS),
        terminated=np.full(ENVIRONMENTS, place == 199),
        truncated=no,
        first=np.full(ENVIRONMENTS, place == 0),
        ignored=np.full(ENVIRONMENTS, place == 200),
    )


def measure_replay(size: int, repeats: int) -> dict[str, dict[str, float]]:
    """Time whole calls of a uniform and of a prioritised replay, after each vector step."""
    settings = PrioritySettings(exponent=0.5, epsilon=1e-6)
    uniform, prioritised = full_replay(size, None), full_replay(size, settings)
    generator = np.random.default_rng(0)
    times: dict[str, list[float]] = {"uniform_sample": [], "sample": [], "update": []}
    one = other = None
    for _ in range(repeats):
        add(uniform)
        add(prioritised)
        start = time.perf_counter()
        one = uniform.sample(BATCH, N_STEP, 0.99, out=one)
        middle = time.perf_counter()
        other = prioritised.sample(BATCH, N_STEP, 0.99, out=other, beta=0.5)
        times["uniform_sample"].append((middle - start) * 1e6)
        times["sample"].append((time.perf_counter() - middle) * 1e6)
        error = generator.exponential(size=BATCH).astype(np.float32)
        start = time.perf_counter()
        assert other.indices is not None, "a replay's batch has indices"
        prioritised.update_priorities(other.indices, error)
        times["update"].append((time.perf_counter() - start) * 1e6)
    return {name: spread(values) for name, values in times.items()}


def measure_commit(size: int) -> dict[str, float]:
    """Time writing the priorities of a commit, in ms."""
    shape = RingShape(
        capacity=size,
        environments=ENVIRONMENTS,
        frame_shape=(),
        frame_dtype=np.dtype(np.uint8),
        stack=1,
        slack=1,
    )
    priorities = np.random.default_rng(0).random(shape.capacity)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        _ = create_ring(shape, Path(folder), priorities=True)
        snapshots = PrioritySnapshots(Path(folder))
        times = []
        for _ in range(10):
            start = time.perf_counter()
            _ = snapshots.write(priorities)
            times.append((time.perf_counter() - start) * 1e3)
        return spread(times)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=1_000_000, help="priorities")
    parser.add_argument("--repeats", type=int, default=5_000)
    parser.add_argument("--commit", help="the commit measured; by default the one that git names")
    parser.add_argument("--machine", help="in words: processor, cores, what else ran")
    arguments = parser.parse_args()
    tree = measure_tree(arguments.size, arguments.repeats)
    result = {
        **provenance(arguments.machine or machine_in_words(), arguments.commit),
        "numpy": np.__version__,
        "priorities": arguments.size,
        "batch": BATCH,
        "repeats": arguments.repeats,
        "target_us": TARGET_US,
        "tree_us": tree,
        "replay_us": measure_replay(arguments.size, arguments.repeats),
        "commit_ms": measure_commit(arguments.size),
    }
    print(json.dumps(result, indent=1))
    write_json(FILE, result)
    verdict = "within" if tree["both"]["median"] <= TARGET_US else "beyond"
    print(f"{tree['both']['median']} µs: {verdict} the target of {TARGET_US} µs")


if __name__ == "__main__":
    main()
