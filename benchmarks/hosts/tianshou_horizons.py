"""Train Tianshou's C51 and Rainbow on CartPole by its own ε and by noise, for two n-step horizons.

    python -m benchmarks.hosts.tianshou_horizons --seeds 2 --machine "…"

The host asks for the distribution of the next state, whatever the horizon is
(tests/integrations/test_tianshou.py), which the noise has no part in. So each agent plays with the
horizon of DQN's settings and with 1, the host's own with ε = 0.05 beside ours; settings are
otherwise those of tianshou.py, with half the steps. Each run plays 100 games with the mean weights.
It writes after every run, and continues where it was stopped: results/hosts/tianshou_horizons.json
and its table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from typing import Any

import torch

from ..provenance import write_json
from ..tables import markdown_table
from . import run, tianshou

KEPT = run.FOLDER / "tianshou_horizons.json"
STEPS = 40_000
AGENTS = {"host": "the host's own, ε = 0.05", "noisy": "learned noise"}
ALGORITHMS = {"c51": "C51", "rainbow": "Rainbow"}
HORIZONS = (1, 10)


def train(algorithm: str, agent: str, horizon: int, seed: int) -> dict[str, Any]:
    """Train one agent and play it."""
    torch.set_num_threads(1)
    own = tianshou.SETTINGS[algorithm]["algorithm"]
    changes = {"steps": STEPS, "algorithm": {**own, "n_step_return_horizon": horizon}}
    used = time.process_time()
    learner = tianshou.Learner(algorithm, seed, noisy=agent == "noisy", changes=changes)
    learner.train(STEPS)
    returns = tianshou.play(learner.policy, seed, run.GAMES)
    return {
        "algorithm": algorithm,
        "agent": agent,
        "horizon": horizon,
        "seed": seed,
        "steps": STEPS,
        "mean_return": round(statistics.fmean(returns), 2),
        "lowest_return": min(returns),
        "cpu_seconds": round(time.process_time() - used, 1),
    }


def table(runs: list[dict[str, Any]]) -> str:
    """Return the table of the runs that there are."""
    rows: list[list[str]] = []
    for algorithm, agent in itertools.product(ALGORITHMS, AGENTS):
        cells = [
            [
                f"{one['mean_return']:.0f}"
                for one in sorted(runs, key=lambda one: one["seed"])
                if (one["algorithm"], one["agent"], one["horizon"]) == (algorithm, agent, horizon)
            ]
            for horizon in HORIZONS
        ]
        if any(cells):
            own = [", ".join(cell) or "not run" for cell in cells]
            rows.append([ALGORITHMS[algorithm], AGENTS[agent], *own])
    heads = ("", "exploration", *(f"horizon {horizon}" for horizon in HORIZONS))
    title = f"CartPole: mean return of {run.GAMES} games after {STEPS:,} steps, by run."
    return "\n".join([title, "", *markdown_table(heads, rows)]) + "\n"


def main() -> None:
    """Run what is missing, seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument(
        "--machine", required=True, help="in words: processor, cores, what else ran"
    )
    arguments = parser.parse_args()
    runs: list[dict[str, Any]] = json.loads(KEPT.read_text()) if KEPT.exists() else []
    names = ("algorithm", "agent", "horizon", "seed")
    done = {tuple(one[name] for name in names) for one in runs}
    cells = itertools.product(range(arguments.seeds), ALGORITHMS, HORIZONS, AGENTS)
    for seed, algorithm, horizon, agent in cells:
        if (algorithm, agent, horizon, seed) in done:
            continue
        result = train(algorithm, agent, horizon, seed)
        runs.append({**result, **run.context(tianshou, arguments.machine)})
        print(json.dumps(result, ensure_ascii=False), flush=True)
        runs.sort(key=lambda one: [one[name] for name in names])
        write_json(KEPT, runs)
        KEPT.with_suffix(".md").write_text(table(runs))


if __name__ == "__main__":
    main()
