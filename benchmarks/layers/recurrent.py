"""Compare noisy LSTMs and GRUs with PyTorch's own on the CPU: acting a step, learning a sequence.

    python -m benchmarks.layers.recurrent --machine "…"

writes results/layers/recurrent.json and .md. Layers of 128 inputs and 256 units on one thread. A
time is the smallest of many calls, since other work on the machine only adds time; a ratio divides
it by that of the plain layer, measured in turns in the same process.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import noisynet

from ..provenance import RESULTS, provenance, write_json
from ..tables import markdown_table

FILE = RESULTS / "layers" / "recurrent.json"
INPUTS, UNITS, BATCH, TIME = 128, 256, 16, 32
KINDS = {"LSTM": (nn.LSTM, noisynet.NoisyLSTM), "GRU": (nn.GRU, noisynet.NoisyGRU)}
STATES = ("plain", "held", "fresh", "rows", "rows, independent")
CALLS = 8
Call = Callable[[], object]


def layer(kind: str, state: str, batch: int) -> nn.Module:
    """Build a layer and put it into a state."""
    plain, noisy = KINDS[kind]
    if state == "plain":
        return plain(INPUTS, UNITS)
    made = noisy(INPUTS, UNITS, noise="independent" if "independent" in state else "factorised")
    if state != "fresh":
        noisynet.hold(made, rows=batch if "rows" in state else None)
    return made


def act(made: nn.Module, x: Tensor) -> None:
    """Run a layer on a sequence without gradients."""
    with torch.no_grad():
        made(x)


def learn(made: nn.Module, x: Tensor) -> None:
    """Run a layer forwards and backwards on a sequence, without the optimizer."""
    made.zero_grad(set_to_none=True)
    made(x)[0].square().sum().backward()


WORKS: dict[str, tuple[Callable[[nn.Module, Tensor], None], int, int]] = {
    # what is done: (how, steps, batch)
    "act, 1 step, batch 1": (act, 1, 1),
    f"act, 1 step, batch {BATCH}": (act, 1, BATCH),
    f"act, {TIME} steps, batch {BATCH}": (act, TIME, BATCH),
    f"learn, {TIME} steps, batch {BATCH}": (learn, TIME, BATCH),
}


def calls() -> dict[tuple[str, str, str], Call]:
    """Return the calls to time, by layer, work and state."""
    found: dict[tuple[str, str, str], Call] = {}
    for kind in KINDS:
        for work, (how, steps, batch) in WORKS.items():
            for state in STATES:
                x = torch.randn(steps, batch, INPUTS)
                found[kind, work, state] = partial(how, layer(kind, state, batch), x)
    return found


def rows_of(rounds: int) -> list[dict[str, Any]]:
    """Measure in turns; return microseconds and ratios to the plain layer."""
    timed = calls()
    fastest = dict.fromkeys(timed, float("inf"))
    for _ in range(rounds):
        for name, call in timed.items():
            for _ in range(CALLS):
                began = time.perf_counter()
                call()
                fastest[name] = min(fastest[name], time.perf_counter() - began)
    table: list[dict[str, Any]] = []
    for (kind, work, state), best in fastest.items():
        ratio = best / fastest[kind, work, "plain"]
        entry = {"layer": kind, "work": work, "state": state}
        table.append({**entry, "microseconds": round(best * 1e6, 1), "ratio": round(ratio, 2)})
    return table


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the table for the pages: ratios, and microseconds of the plain layer."""
    lines: list[list[str]] = []
    for kind in KINDS:
        for work in WORKS:
            own = {row["state"]: row for row in rows if (row["layer"], row["work"]) == (kind, work)}
            ratios = [f"{own[state]['ratio']}" for state in STATES[1:]]
            lines.append([kind, work, f"{own['plain']['microseconds']:.0f}", *ratios])
    heads = [f"{INPUTS}→{UNITS}", "work", "plain: µs", *STATES[1:]]
    return "\n".join(markdown_table(heads, lines, left=2)) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="What do noisy recurrent layers cost on the CPU?")
    parser.add_argument("--machine", default="not said")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=FILE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = rows_of(arguments.rounds)
    record = {
        **provenance(arguments.machine),
        "load_average": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "threads": 1,
        "rounds": arguments.rounds,
        "rows": rows,
    }
    write_json(arguments.out, record)
    table = markdown(rows)
    arguments.out.with_suffix(".md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
