"""Compare whole training loops on Pong: steps and samples learned per second, and memory.

    python -m benchmarks.training.run --machine "…"          or: make bench-training

All that learn from a replay do the same work: the Nature CNN, plain DQN, batch 32, a replay of
100,000, one update per 4 steps; and the book's own work, one update per step. Those that learn from
rollouts have their own settings: noisynet's preset pqn-pong, and Stable-Baselines3's PPO with those
of its zoo; `benchmarks.pong` measures how soon each solves Pong. noisynet chooses its precision by
measuring, as `noisynet train` does, and is also measured in float32, in which the others compute.

Each contender runs in its own process and warms up beyond its random steps; then they take turns,
so that a slow minute of a shared machine affects all alike. PPO's turns end with an iteration, and
may take longer. The share of the floor is the share of the time that the products of the updates
would take at the speed of a plain matrix product. A library that is not installed is left out, and
a line says so. Writes cpu.json and cpu.md under results/training (cpu-part with --only).
contenders.py has the contenders, floor.py the floor.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ..provenance import RESULTS, provenance, write_json
from ..tables import markdown_table
from .contenders import CONTENDERS
from .floor import AGENTS, floor

FOLDER = RESULTS / "training"
ROUNDS, ROUND_SECONDS = 7, 20.0
# By work: the contender that all others are compared with, and our targets, the least ratios to it.
COMPARISONS = {
    "one environment": ("SB3, 1 environment", {"noisynet, 1 environment": 4.0}),
    "eight environments": ("SB3, 8 environments", {"noisynet, 8 environments": 2.5}),
    "the book's work": ("the book's loop", {"noisynet, the book's work": 3.0}),
    "rollouts": ("SB3 PPO, 8 environments", {}),
}


def serve(name: str, threads: int, connection: Connection) -> None:
    """Run one contender in this process: warm up, then train for as long as each message says."""
    contender = CONTENDERS[name](threads)
    contender.warm_up()
    connection.send("warm")
    while (seconds := connection.recv()) is not None:
        connection.send(contender.train_for(seconds))
    connection.send(contender.finish())


class Contestant:
    """A contender in its own process."""

    def __init__(self, name: str, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._connection, other = context.Pipe()
        self._process = context.Process(target=serve, args=(name, threads, other), daemon=True)
        self._process.start()
        other.close()
        self._hear()

    def train_for(self, seconds: float) -> dict[str, float]:
        """Let the contender train, and return the rates of this round."""
        self._connection.send(seconds)
        return self._hear()

    def finish(self) -> dict[str, Any]:
        """End the contender; return its peak memory and, where known, where its time went."""
        self._connection.send(None)
        last = self._hear()
        self._process.join()
        return last

    def _hear(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError:
            raise SystemExit(f"{self.name}: its process died; its output above says why") from None


def compare(names: list[str], threads: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure the contenders in turns."""
    contestants = [Contestant(name, threads) for name in names]
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(rounds):
        order = contestants if number % 2 == 0 else contestants[::-1]
        for contestant in order:
            rates = contestant.train_for(seconds)
            measured[contestant.name].append(rates)
            print(f"round {number}: {contestant.name}: {rates['steps']:.0f} steps/s", flush=True)
    return {
        contestant.name: {"rounds": measured[contestant.name], **contestant.finish()}
        for contestant in contestants
    }


def ratios(results: dict[str, Any], name: str, reference: str) -> list[float]:
    """Return the ratio of steps per second in each round."""
    pairs = zip(results[name]["rounds"], results[reference]["rounds"], strict=True)
    return [one["steps"] / other["steps"] for one, other in pairs]


def share_of_floor(result: dict[str, Any], name: str) -> float:
    """Return the share of the time that the products of a contender's updates need.

    It is the updates per second times the multiply-adds of one, divided by the multiply-adds per
    second of a plain product in the same precision.
    """
    one = result["results"][name]
    precision = one.get("precision", "float32")
    speed = max(row["gmacs_per_second"] for row in result["floor"] if row["precision"] == precision)
    updates = statistics.median(rates["updates"] for rates in one["rounds"])
    return updates * one["multiply_adds"] / (1e9 * speed)


def markdown(result: dict[str, Any]) -> str:
    """Write the table of each piece of work, our breakdown and the floor."""
    lines: list[str] = []
    results = result["results"]
    for work, (reference, targets) in COMPARISONS.items():
        names = [name for name in results if CONTENDERS[name].work == work]
        if not names:
            continue
        rows: list[list[str]] = []
        for name in names:
            rounds = results[name]["rounds"]
            rates = [statistics.median(one[key] for one in rounds)
                     for key in ("steps", "updates", "samples")]  # fmt: skip
            ratio = ""
            if reference in names:
                ratio = f"{statistics.median(ratios(results, name, reference)):.2f}"
            rows.append([
                name, results[name].get("precision", "float32"),
                f"{rates[0]:.0f}", f"{rates[1]:.1f}", f"{rates[2]:.0f}",
                f"{share_of_floor(result, name):.0%}", f"{results[name]['peak_mb']:.0f}", ratio,
                f"{targets[name]:g}" if name in targets else "",
            ])  # fmt: skip
        heads = ("", "precision", "steps/s", "updates/s", "samples learned/s", "share of the floor")
        table = markdown_table((*heads, "peak MB", f"× {reference}", "target"), rows)
        lines += [f"### {work}", "", *table, ""]
    lines += [f"Left out: {name}: {reason}." for name, reason in result["left_out"].items()]
    lines += [""] if result["left_out"] else []
    shares = {
        name: ", ".join(f"{part} {share:.1%}" for part, share in one["parts"].items())
        for name, one in results.items()
        if one.get("parts")
    }
    lines += ["### Where noisynet's time goes", ""]
    lines += [*markdown_table(("", "share of the time"), shares.items()), "", "### The floor", ""]
    for row in result["floor"]:
        lines.append(
            f"An update of {row['agent']} on {row['batch']} samples in {row['precision']} on "
            f"{row['threads']} threads takes {row['update_ms']:.1f} ms; its multiply-adds at the "
            f"speed of a plain matrix product ({row['gmacs_per_second']:.0f} G/s) take "
            f"{row['floor_ms']:.1f} ms: {row['share']:.0%}."
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", default="not said")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=ROUND_SECONDS, help="of a round's turn")
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for work in COMPARISONS:
        names = []
        for name in arguments.only:
            if CONTENDERS[name].work != work:
                continue
            reason = CONTENDERS[name].missing()
            if reason:
                left_out[name] = reason
            else:
                names.append(name)
        if names:
            results |= compare(names, arguments.threads, arguments.rounds, arguments.seconds)
    result = {
        **provenance(arguments.machine),
        "processor": platform.processor(),
        "threads": arguments.threads,
        "left_out": left_out,
        "results": results,
        "floor": [
            floor(precision, arguments.threads, agent)
            for agent in AGENTS
            for precision in ("float32", "bfloat16")
        ],
    }
    name = "cpu" if set(arguments.only) == set(CONTENDERS) else "cpu-part"
    write_json(arguments.out / f"{name}.json", result)
    table = markdown(result)
    (arguments.out / f"{name}.md").write_text(table)
    print(table)
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")


if __name__ == "__main__":
    main()
