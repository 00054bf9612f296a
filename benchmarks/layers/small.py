"""Compare small noisy layers with nn.Linear on the CPU, where calls cost more than products.

    python -m benchmarks.layers.small --machine "…" [--before FOLDER]

writes results/layers/small.json and .md. The network is 4→128→128→2 with factorised noise, on one
thread; 4→64→2 is measured beside the layers of other libraries, redrawn before each forward or
with a draw that is kept. FOLDER is the `src` of another commit (`git archive COMMIT src | tar -x -C
…`): both are measured, each in its own process, in turns. A time is the smallest of many short
slices, since other work on the machine only adds time; a ratio divides it by that of the same work
with nn.Linear in the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import noisynet

from ..provenance import RESULTS, provenance, write_json
from ..tables import markdown_table
from .contenders import Contender, contenders, do_nothing
from .peers import MARK, PeerLayer

FILE = RESULTS / "layers" / "small.json"
ROOT = Path(__file__).resolve().parents[2]
OWN_SOURCE = ROOT / "src"
NET = "4→128→128→2"
BATCH = 64
STATES = ("plain", "fresh", "held", "rows", "fresh rows")
SLICES = 60
Call = Callable[[], object]


def network(state: str) -> nn.Sequential:
    """Build the network with nn.Linear, or with noisy layers in a state."""
    net = nn.Sequential(
        nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2)
    )
    if state == "plain":
        return net
    noisynet.noisify(net)
    if state in ("held", "rows"):
        noisynet.hold(net, rows=BATCH if state == "rows" else None)
    else:
        noisynet.release(net, per_row=state == "fresh rows")
    return net


def forward(net: nn.Module, x: Tensor) -> None:
    """Run the network without gradients, as acting does."""
    with torch.no_grad():
        net(x)


def forward_and_backward(net: nn.Module, x: Tensor) -> None:
    """Run the network forwards and backwards, as learning does, without the optimizer."""
    net.zero_grad(set_to_none=True)
    net(x).square().sum().backward()


def dqn_update(state: str) -> Call:
    """Return a whole update of a DQN: both networks, Adam, and the redraw of both."""
    online, target = network(state), network(state)
    optimizer = torch.optim.Adam(online.parameters(), lr=1e-4)
    if state != "plain":
        noisynet.attach(optimizer, online, target)
    observation, next_observation = torch.randn(BATCH, 4), torch.randn(BATCH, 4)
    action, reward = torch.randint(2, (BATCH, 1)), torch.randn(BATCH)

    def update() -> None:
        with torch.no_grad():
            goal = reward + 0.99 * target(next_observation).amax(-1)
        chosen = online(observation).gather(1, action).squeeze(1)
        loss = functional.smooth_l1_loss(chosen, goal)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return update


def two_layers(contender: Contender, x: Tensor) -> dict[str, Call]:
    """Return the forward of 4→64→2 with a contender's layers, as {draw: call}.

    A layer that draws at each forward has no draw that is kept.
    """
    net = nn.Sequential(contender.make(4, 64), nn.ReLU(), contender.make(64, 2))
    layers = (net[0], net[2])
    contender.ready(net, len(x))
    if contender.origin == "noisynet":
        redraws = [contender.redraw(net)]  # one call for all layers
    else:
        redraws = [contender.redraw(layer) for layer in layers]

    def redrawn() -> None:
        for redraw in redraws:
            redraw()
        forward(net, x)

    if contender.sharing == "none":
        return {"plain": redrawn}
    draws_by_itself = getattr(type(net[0]), "redraw", None) is PeerLayer.redraw
    if draws_by_itself or redraws[0] is do_nothing:
        return {"redrawn": redrawn}
    return {"redrawn": redrawn, "kept": partial(forward, net, x)}


def works() -> dict[str, Call]:
    """Return the calls to time, as {"work|state": call}."""
    found: dict[str, Call] = {}
    for batch in (1, BATCH):
        x = torch.randn(batch, 4)
        for contender in contenders()[0]:
            if contender.sharing == "per row":
                continue
            for draw, call in two_layers(contender, x).items():
                name = draw if draw == "plain" else f"{contender.label.removesuffix(MARK)}: {draw}"
                found[f"4→64→2, forward, batch {batch}|{name}"] = call
    for state in STATES:
        net, x = network(state), torch.randn(BATCH, 4)
        found[f"{NET}, forward, batch {BATCH}|{state}"] = partial(forward, net, x)
        found[f"{NET}, forward and backward, batch {BATCH}|{state}"] = partial(
            forward_and_backward, net, x
        )
        if "rows" not in state:
            found[f"{NET}, forward, batch 1|{state}"] = partial(forward, net, torch.randn(1, 4))
    for state in ("plain", "held"):
        found[f"{NET}, DQN update, batch {BATCH}|{state}"] = dqn_update(state)
    found[f"{NET}, resample alone|held"] = partial(noisynet.resample, network("held"))
    return found


def seconds(call: Call) -> float:
    """Return the time of a call in seconds: the smallest of many slices."""
    call()
    slices = []
    for _ in range(SLICES):
        began = time.perf_counter()
        call()
        slices.append(time.perf_counter() - began)
    return min(slices)


def work() -> None:
    """Measure a round for each line on standard input, and answer with a line of JSON."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    calls = works()
    for call in calls.values():
        for _ in range(20):
            call()
    for _ in sys.stdin:
        print(json.dumps({name: seconds(call) for name, call in calls.items()}), flush=True)


def measure(sources: dict[str, Path], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Measure each source in its own process, in turns."""
    workers: dict[str, subprocess.Popen[str]] = {}
    for name, source in sources.items():
        environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
        workers[name] = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.layers.small", "--worker"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
    found: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    for number in range(rounds):
        order = list(workers) if number % 2 else list(reversed(workers))
        for name in order:
            stdin, stdout = workers[name].stdin, workers[name].stdout
            assert stdin is not None
            assert stdout is not None
            stdin.write("\n")
            stdin.flush()
            found[name].append(json.loads(stdout.readline()))
    for worker in workers.values():
        worker.communicate()
    return found


def rows_of(found: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Return a row for each work and state: microseconds and ratio to nn.Linear, by source.

    Times are the smallest of all rounds: other work on the machine only adds time.
    """
    table: list[dict[str, Any]] = []
    for name in next(iter(found.values()))[0]:
        what, state = name.split("|")
        row: dict[str, Any] = {"work": what, "state": state}
        for source, rounds in found.items():
            plain = f"{what}|plain"
            fastest = {key: min(times[key] for times in rounds) for key in rounds[0]}
            entry = {"microseconds": round(fastest[name] * 1e6, 1)}
            if plain in fastest:
                entry["ratio"] = round(fastest[name] / fastest[plain], 2)
            row[source] = entry
        table.append(row)
    return sorted(table, key=lambda row: row["work"])


def markdown(rows: list[dict[str, Any]], sources: list[str]) -> str:
    """Return the table for the pages."""
    heads = ["work", "noise"]
    for source in sources:
        heads += [f"{source}: µs", "ratio"]
    lines: list[list[str]] = []
    for row in rows:
        line = [row["work"], "nn.Linear" if row["state"] == "plain" else row["state"]]
        for source in sources:
            line += [f"{row[source]['microseconds']:.0f}", f"{row[source].get('ratio', '–')}"]
        lines.append(line)
    return "\n".join(markdown_table(heads, lines, left=2)) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="What do small noisy layers cost on the CPU?")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--before", type=Path, help="the src folder of another commit")
    parser.add_argument("--before-commit", default="before", help="which commit that is")
    parser.add_argument("--machine", default="not said")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--out", type=Path, default=FILE)
    arguments = parser.parse_args()
    if arguments.worker:
        work()
        return
    sources = {"now": OWN_SOURCE}
    if arguments.before is not None:
        if not (arguments.before / "noisynet").is_dir():
            parser.error(f"--before: got {arguments.before}, expected a folder with noisynet in it")
        sources = {"before": arguments.before.resolve(), **sources}
    rows = rows_of(measure(sources, arguments.rounds))
    record = {
        **provenance(arguments.machine),
        "load_average": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "threads": 1,
        "rounds": arguments.rounds,
        "before": arguments.before_commit if arguments.before is not None else None,
        "rows": rows,
    }
    write_json(arguments.out, record)
    table = markdown(rows, list(sources))
    arguments.out.with_suffix(".md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
