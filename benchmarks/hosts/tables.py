"""The tables of a host's page, from the results that run.py keeps."""

from __future__ import annotations

from typing import Any

from ..tables import markdown_table

ALGORITHMS = {
    "dqn": "DQN",
    "qrdqn": "QR-DQN",
    "c51": "C51",
    "rainbow": "Rainbow",
    "ppo": "PPO",
    "a2c": "A2C",
    "td3": "TD3, Pendulum",
    "sac": "SAC, Pendulum",
    "pendulum-ppo": "PPO, Pendulum",
    "recurrent": "RecurrentPPO, CartPole without velocities",
}


def tables(results: dict[str, Any]) -> str:
    """Return the tables of a host's file: whether its agents learn, and what noise costs."""
    return "\n".join([*_learning(results["learning"]), *_overhead(results["overhead"])]) + "\n"


def _learning(results: dict[str, Any]) -> list[str]:
    if not results:
        return []
    first = next(iter(results.values()))
    goal, games = first["goal"], first["games"]
    rows: list[list[str]] = []
    for algorithm, one in results.items():
        runs = sorted(one["runs"], key=lambda run: run["seed"])
        rows.append([
            ALGORITHMS[algorithm],
            f"{one['settings']['steps']:,}",
            f"{one['seeds_at_goal']} of {len(runs)}",
            ", ".join(f"{run['mean_return']:.0f}" for run in runs),
        ])  # fmt: skip
    title = f"CartPole by noise alone: mean return of {games} games with the mean weights, by run."
    heads = ("", "steps", f"runs at {goal:g} or more", "each run")
    return [title, "", *markdown_table(heads, rows), ""]


def _overhead(results: dict[str, Any]) -> list[str]:
    if not results:
        return []
    rows: list[list[str]] = []
    for algorithm, one in results.items():
        for part in one["measured"]:
            low, high = part["time_ratio_range"]
            rows.append([
                ALGORITHMS[algorithm],
                f"{part['observations']}s",
                f"{part['host_steps_per_second']:,.0f}",
                f"{part['noisy_steps_per_second']:,.0f}",
                f"× {part['time_ratio_median']:.2f} ({low:.2f} to {high:.2f})",
            ])  # fmt: skip
    title = (
        "Time relative to the host's own agent on the same work: median and range of the rounds."
    )
    heads = ("", "observations", "steps/s of the host's own", "with noise", "time")
    return [title, "", *markdown_table(heads, rows), ""]
