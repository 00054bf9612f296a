"""Train other libraries' agents with our noise, and compare their speed with the host's own.

    python -m benchmarks.hosts.run --host sb3 --algorithm dqn --machine "…"
    python -m benchmarks.hosts.run --host sb3 --algorithm dqn --overhead --machine "…"

The first trains CartPole by noise alone, five seeds one after the other, and plays 100 games with
the mean weights of each; it writes after every seed, and continues where it was stopped. The second
runs the host's own agent and the noisy one in turns, on the same work. Both write
results/hosts/<host>.json and the host's tables, <host>.md. Each host's module is in this folder.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Protocol

from ..provenance import RESULTS, provenance, write_json
from .tables import tables

FOLDER = RESULTS / "hosts"
HOSTS = ("sb3", "tianshou", "torchrl", "rllib")
GAMES = 100
GOAL = 450.0
ROUNDS = 9


class Agent(Protocol):
    """An agent of a host, to be timed."""

    def run(self, steps: int) -> None:
        """Continue acting and learning for this many agent steps."""
        ...


class Host(Protocol):
    """The functions and constants that a host's module defines."""

    PACKAGES: Sequence[str]
    SETTINGS: Mapping[str, Mapping[str, Any]]
    """The settings of each algorithm, as JSON can hold them; `steps` is one of them."""
    TIMED_STEPS: Mapping[str, int]
    """Agent steps in a round of timing, by kind of observation: `vector` and `image`."""

    def play_trained(self, algorithm: str, seed: int, games: int) -> list[float]:
        """Train CartPole by noise alone; return the returns of games with the mean weights."""
        ...

    def agent(self, algorithm: str, *, noisy: bool, observations: str) -> Agent:
        """Build the agent to time: the noisy one, or the host's own on the same work."""
        ...


def run_seed(host: Host, algorithm: str, seed: int) -> dict[str, Any]:
    """Train one seed and evaluate it."""
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
    """Time both agents in turns, so that other work on the machine affects both alike.

    Times are processor time, which does not include waiting for other programs.
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
        # The order changes from round to round.
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


def context(host: Any, machine: str) -> dict[str, Any]:
    """Return the provenance of a result, with the cores and the versions of packages."""
    return {**provenance(machine), **versions(host.PACKAGES)}


def versions(packages: Sequence[str]) -> dict[str, Any]:
    """Return the number of cores and the versions of packages, on which times depend too."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "versions": {package: version(package) for package in ("torch", *packages)},
    }


def keep(host: str, part: str, algorithm: str, result: Mapping[str, Any]) -> None:
    """Write a result into the host's file, under `learning` or `overhead`, and its tables."""
    path = FOLDER / f"{host}.json"
    results: dict[str, Any] = {"learning": {}, "overhead": {}}
    if path.exists():
        results |= json.loads(path.read_text())
    results[part] = dict(sorted({**results[part], algorithm: result}.items()))
    write_json(path, results)
    path.with_suffix(".md").write_text(tables(results))


def learn(host: Host, name: str, algorithm: str, seeds: int, machine: str) -> None:
    """Run the seeds that are missing, one after the other."""
    path = FOLDER / f"{name}.json"
    settings = json.loads(json.dumps(host.SETTINGS[algorithm]))
    kept = json.loads(path.read_text())["learning"] if path.exists() else {}
    former = kept.get(algorithm, {})
    # Runs with other settings do not count.
    runs = former["runs"] if former.get("settings") == settings else []
    for seed in range(seeds):
        if any(run["seed"] == seed for run in runs):
            continue
        runs.append({**run_seed(host, algorithm, seed), **context(host, machine)})
        print(json.dumps(runs[-1], ensure_ascii=False), flush=True)
        result = {
            "environment": "CartPole-v1",
            "games": GAMES,
            "goal": GOAL,
            "seeds_at_goal": sum(run["mean_return"] >= GOAL for run in runs),
            "settings": settings,
            "runs": runs,
        }
        keep(name, "learning", algorithm, result)


def main() -> None:
    """Train, or measure the overhead."""
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
    host: Any = importlib.import_module(f".{arguments.host}", __package__)
    name, algorithm = arguments.host, arguments.algorithm
    if algorithm not in host.SETTINGS:
        parser.error(f"--algorithm: got {algorithm!r}, expected one of {', '.join(host.SETTINGS)}")
    if not arguments.overhead:
        learn(host, name, algorithm, arguments.seeds, arguments.machine)
        return
    measured = [measure_overhead(host, algorithm, one) for one in host.TIMED_STEPS]
    result = {**context(host, arguments.machine), "measured": measured}
    print(json.dumps(result, indent=1, ensure_ascii=False))
    keep(name, "overhead", algorithm, result)


if __name__ == "__main__":
    main()
