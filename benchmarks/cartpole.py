"""Train a CartPole preset over several seeds and play 100 games with the mean weights of each.

    python benchmarks/cartpole.py --preset cartpole --seeds 5

writes benchmarks/results/cartpole/<preset>.json with commit, machine and the wall time of each run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from noisynet.evaluation.agent import evaluate_run
from noisynet.runs import config
from noisynet.training import start

RESULTS = Path(__file__).parent / "results" / "cartpole"
GAMES = 100
GOAL = 475.0


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


def main() -> None:
    """Run the seeds one after the other and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="cartpole")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--machine", required=True, help="in words: processor, cores, what else ran"
    )
    arguments = parser.parse_args()
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
    ).stdout.strip()
    runs = []
    for seed in range(arguments.seeds):
        runs.append(run_seed(arguments.preset, seed))
        print(json.dumps(runs[-1]), flush=True)
    settings = config.load(arguments.preset)
    result = {
        "preset": arguments.preset,
        "commit": commit,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": arguments.machine,
        "cores": len(os.sched_getaffinity(0)),
        "games": GAMES,
        "seeds_at_475_or_more": sum(run["mean_return"] >= GOAL for run in runs),
        "runs": runs,
        "config": settings.model_dump(mode="json"),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{arguments.preset}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
