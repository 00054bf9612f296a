"""Train CartPole presets over several seeds and play 100 games with the mean weights of each.

    python -m benchmarks.study.cartpole cartpole cartpole-rainbow --seeds 5 --machine "…"

replaces the presets' lines in results/study/cartpole.jsonl, which have commit, machine and the wall
time of each run, and writes cartpole.md, a row for each preset. `--table` only writes the table.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from noisynet.assemble import start
from noisynet.evaluation.agent import evaluate_run
from noisynet.runs import config

from ..provenance import RESULTS, provenance
from ..tables import markdown_table
from .part import Record

FILE = RESULTS / "study" / "cartpole.jsonl"
GAMES = 100
GOAL = 475.0
TWINS = {
    "cartpole": "cartpole-epsilon",
    "cartpole-noisy-dqn": "cartpole-dqn",
    "cartpole-noisy-dueling": "cartpole-dueling",
    "pqn-cartpole": "pqn-cartpole-epsilon",
}
"""The presets that explore by noise, and those that differ from them in ε-greedy alone."""


def run_seed(preset: str, seed: int) -> dict[str, Any]:
    """Train one seed and evaluate it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        began, used = time.perf_counter(), time.process_time()
        outcome = start(config.load(preset, {"seed": seed}), path)
        wall, cpu = time.perf_counter() - began, time.process_time() - used
        played = evaluate_run(path, episodes=GAMES)
    return {
        "seed": seed,
        "steps": outcome.step,
        "mean_return": played["mean"],
        "interval": played["interval"],
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
    }


def read_results() -> dict[str, dict[str, Any]]:
    """Return the kept results by preset."""
    lines = FILE.read_text().splitlines() if FILE.exists() else []
    return {result["preset"]: result for result in map(json.loads, lines)}


def twins() -> list[Record]:
    """Return the runs of presets that explore by noise, and of their twins by ε-greedy."""
    results = read_results()
    return [
        {
            "task": f"CartPole, `{noisy}`",
            "arm": arm,
            "seed": one["seed"],
            "final": one["mean_return"],
            "wall_seconds": one["wall_seconds"],
        }
        for noisy, greedy in TWINS.items()
        for arm, preset in (("noise", noisy), ("epsilon", greedy))
        for one in results[preset]["runs"]
    ]


def run_preset(preset: str, seeds: int, machine: str) -> None:
    """Run the seeds one after the other and write the results."""
    runs = []
    for seed in range(seeds):
        runs.append(run_seed(preset, seed))
        print(preset, json.dumps(runs[-1]), flush=True)
    result = {
        "preset": preset,
        **provenance(machine),
        "cores": len(os.sched_getaffinity(0)),
        "games": GAMES,
        "seeds_at_475_or_more": sum(run["mean_return"] >= GOAL for run in runs),
        "runs": runs,
        "config": config.load(preset).model_dump(mode="json"),
    }
    results = {**read_results(), preset: result}
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text("".join(json.dumps(results[name]) + "\n" for name in sorted(results)))


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return a table with a row for each preset."""
    heads = (
        "preset", "steps", "mean return of each seed", "median", "seeds at 475 or more",
        "seconds a run",
    )  # fmt: skip
    rows: list[list[str]] = []
    for _, result in sorted(results.items()):
        runs = result["runs"]
        returns = sorted(run["mean_return"] for run in runs)
        seconds = [run["wall_seconds"] for run in runs]
        rows.append([
            f"`{result['preset']}`",
            f"{max(run['steps'] for run in runs):,}",
            ", ".join(f"{value:.0f}" for value in returns),
            f"{statistics.median(returns):.0f}",
            f"{result['seeds_at_475_or_more']} of {len(runs)}",
            f"{min(seconds):.0f} to {max(seconds):.0f}",
        ])  # fmt: skip
    return "\n".join(markdown_table(heads, rows)) + "\n"


def main() -> None:
    """Run the presets that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="*", default=["cartpole"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--machine", default="not said", help="in words: processor, cores, what else ran"
    )
    parser.add_argument("--table", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    if not arguments.table:
        for preset in arguments.presets:
            run_preset(preset, arguments.seeds, arguments.machine)
    FILE.with_suffix(".md").write_text(table(read_results()))


if __name__ == "__main__":
    main()
