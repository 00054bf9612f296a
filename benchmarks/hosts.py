"""Time agents of other people's frameworks that have our noise, and see whether they learn.

    python benchmarks/hosts.py --host sb3 --algorithm dqn --machine "…"
    python benchmarks/hosts.py --host sb3 --algorithm dqn --overhead --machine "…"

The first trains CartPole by noise alone, five seeds one after the other, and plays 100 games with
the mean weights of each; it writes benchmarks/results/hosts/<host>-<algorithm>.json after every
seed, and goes on there where it was stopped. The second runs the host's own agent and the noisy one
in turns, on the same work, and writes …-overhead.json. Both write <host>.md, the host's tables.
What is a host's own stands in hosts_*.py.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from host_tables import write_tables
from provenance import current_commit

RESULTS = Path(__file__).parent / "results" / "hosts"
HOSTS = ("sb3", "tianshou", "torchrl", "rllib")
GAMES = 100
GOAL = 450.0
ROUNDS = 9


class Agent(Protocol):
    """What a host gives to be timed."""

    def run(self, steps: int) -> None:
        """Go on acting and learning for so many agent steps."""
        ...


class Host(Protocol):
    """What a module hosts_*.py has."""

    PACKAGES: Sequence[str]
    SETTINGS: Mapping[str, Mapping[str, Any]]
    """For each algorithm what can be written as JSON, `steps` among it."""
    TIMED_STEPS: Mapping[str, int]
    """Agent steps in one round of timing: of observations that are vectors, and images."""

    def play_trained(self, algorithm: str, seed: int, games: int) -> list[float]:
        """Train CartPole by noise alone, and give the returns of games with the mean weights."""
        ...

    def agent(self, algorithm: str, *, noisy: bool, observations: str) -> Agent:
        """Build an agent to time: the noisy one, or the host's own on the same work."""
        ...


def run_seed(host: Host, algorithm: str, seed: int) -> dict[str, Any]:
    """Train one seed and play it."""
    began, used = time.perf_counter(), time.process_time()
    returns = host.play_trained(algorithm, seed, GAMES)
    return {
        "seed": seed,
        "mean_return": round(statistics.fmean(returns), 2),
        "lowest_return": min(returns),
        "wall_seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
    }


def measure_overhead(host: Host, algorithm: str, observations: str) -> dict[str, Any]:
    """Time both agents in turns, so that what else the machine does meets both alike.

    Seconds are those of the processor, which waiting for other programs does not count to.
    """
    agents = {
        name: host.agent(algorithm, noisy=name == "noisy", observations=observations)
        for name in ("host", "noisy")
    }
    steps = host.TIMED_STEPS[observations]
    for agent in agents.values():
        agent.run(steps)
    seconds: dict[str, list[float]] = {name: [] for name in agents}
    for round_number in range(ROUNDS):
        # Who goes first changes from round to round.
        for name in sorted(agents, reverse=bool(round_number % 2)):
            began = time.process_time()
            agents[name].run(steps)
            seconds[name].append(time.process_time() - began)
    ratios = [one / other for one, other in zip(seconds["noisy"], seconds["host"], strict=True)]
    return {
        "observations": observations,
        "steps_a_round": steps,
        "rounds": ROUNDS,
        "host_steps_per_second": round(steps / statistics.median(seconds["host"]), 1),
        "noisy_steps_per_second": round(steps / statistics.median(seconds["noisy"]), 1),
        "time_ratio_median": round(statistics.median(ratios), 3),
        "time_ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
    }


def _context(host: Host, machine: str) -> dict[str, Any]:
    return {
        "commit": current_commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine,
        "cores": len(os.sched_getaffinity(0)),
        "versions": {package: version(package) for package in ("torch", *host.PACKAGES)},
    }


def _write(path: Path, result: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def learn(host: Host, name: str, algorithm: str, seeds: int, machine: str) -> None:
    """Run the seeds that are missing, one after the other."""
    path = RESULTS / f"{name}-{algorithm}.json"
    settings = json.loads(json.dumps(host.SETTINGS[algorithm]))
    former = json.loads(path.read_text()) if path.exists() else {}
    # Runs of other settings are no runs of this.
    runs = former["runs"] if former.get("settings") == settings else []
    for seed in range(seeds):
        if any(run["seed"] == seed for run in runs):
            continue
        runs.append({**run_seed(host, algorithm, seed), **_context(host, machine)})
        print(json.dumps(runs[-1], ensure_ascii=False), flush=True)
        result = {
            "host": name,
            "algorithm": algorithm,
            "environment": "CartPole-v1",
            "games": GAMES,
            "goal": GOAL,
            "seeds_at_goal": sum(run["mean_return"] >= GOAL for run in runs),
            "settings": settings,
            "runs": runs,
        }
        _write(path, result)
        write_tables(RESULTS, name)


def main() -> None:
    """Learn, or measure the overhead."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", choices=HOSTS, required=True)
    parser.add_argument("--algorithm", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument(
        "--machine", required=True, help="in words: processor, cores, what else ran"
    )
    arguments = parser.parse_args()
    host: Any = importlib.import_module(f"hosts_{arguments.host}")
    name, algorithm = arguments.host, arguments.algorithm
    if algorithm not in host.SETTINGS:
        parser.error(f"--algorithm: got {algorithm!r}, expected one of {', '.join(host.SETTINGS)}")
    if not arguments.overhead:
        learn(host, name, algorithm, arguments.seeds, arguments.machine)
        return
    measured = [measure_overhead(host, algorithm, one) for one in host.TIMED_STEPS]
    result = {"host": name, "algorithm": algorithm, **_context(host, arguments.machine)}
    result["measured"] = measured
    print(json.dumps(result, indent=1, ensure_ascii=False))
    _write(RESULTS / f"{name}-{algorithm}-overhead.json", result)
    write_tables(RESULTS, name)


if __name__ == "__main__":
    main()
