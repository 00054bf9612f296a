"""The tables of hosts.py: what its JSON files hold, for the page of each host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_ALGORITHMS = {
    "dqn": "DQN",
    "qrdqn": "QR-DQN",
    "c51": "C51",
    "rainbow": "Rainbow",
    "ppo": "PPO",
    "a2c": "A2C",
}


def write_tables(results: Path, host: str) -> None:
    """Write <host>.md of what <host>-*.json hold."""
    records = [json.loads(path.read_text()) for path in sorted(results.glob(f"{host}-*.json"))]
    lines = _learning([one for one in records if "runs" in one])
    lines += _overhead([one for one in records if "measured" in one])
    (results / f"{host}.md").write_text("\n".join(lines) + "\n")


def _learning(records: list[dict[str, Any]]) -> list[str]:
    if not records:
        return []
    goal, games = records[0]["goal"], records[0]["games"]
    lines = [
        f"CartPole by noise alone: mean return of {games} games with the mean weights, a run each.",
        "",
        f"| | steps | runs at {goal:g} or more | each run |",
        "|---|---|---|---|",
    ]
    for one in records:
        runs = sorted(one["runs"], key=lambda run: run["seed"])
        lines.append(
            f"| {_ALGORITHMS[one['algorithm']]} | {one['settings']['steps']:,} "
            f"| {one['seeds_at_goal']} of {len(runs)} "
            f"| {', '.join(format(run['mean_return'], '.0f') for run in runs)} |"
        )
    return [*lines, ""]


def _overhead(records: list[dict[str, Any]]) -> list[str]:
    if not records:
        return []
    lines = [
        "Time beside the host's own agent on the same work: median and range of the rounds.",
        "",
        "| | observations | steps/s of the host's own | with noise | time |",
        "|---|---|---|---|---|",
    ]
    for one in records:
        for part in one["measured"]:
            low, high = part["time_ratio_range"]
            lines.append(
                f"| {_ALGORITHMS[one['algorithm']]} | {part['observations']}s "
                f"| {part['host_steps_per_second']:,.0f} | {part['noisy_steps_per_second']:,.0f} "
                f"| × {part['time_ratio_median']:.2f} ({low:.2f} to {high:.2f}) |"
            )
    return [*lines, ""]
