"""Time the pieces of a factorised layer's small forward: where the time beyond two products goes.

    python -m benchmarks.layers.pieces --machine "…"

writes results/layers/pieces.json: medians in microseconds on one thread, 3136→512.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

import noisynet
from noisynet.layers.noise import signed_sqrt

from ..provenance import RESULTS, provenance, write_json

FILE = RESULTS / "layers" / "pieces.json"
P, Q, ROWS = 3136, 512, 32


def microseconds(run: Callable[[], object]) -> float:
    for _ in range(5):
        run()
    times = []
    for _ in range(300):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return round(statistics.median(times) * 1e6, 1)


def time_pieces() -> dict[str, float]:
    """Time the layer and its pieces, without gradients."""
    linear, layer = nn.Linear(P, Q), noisynet.NoisyLinear(P, Q)
    mean, sigma, bias, bias_sigma = layer.weight, layer.weight_sigma, layer.bias, layer.bias_sigma
    x, row, column = torch.randn(1, P), torch.randn(P), torch.randn(Q, 1)
    normals, many, scratch = torch.randn(P + Q), torch.randn(ROWS, P + Q), torch.empty(Q, P)

    def two_products() -> None:
        functional.linear(x, mean, bias)
        functional.linear(x, sigma, bias_sigma)

    def build_in_scratch() -> None:
        torch.mul(sigma, row, out=scratch)
        torch.addcmul(mean, scratch, column, out=scratch)

    pieces: dict[str, Callable[[], object]] = {
        "nn.Linear, batch 1": lambda: linear(x),
        "its product": lambda: functional.linear(x, linear.weight, linear.bias),
        "two such products": two_products,
        "a fresh noisy layer, batch 1": lambda: layer(x),
        "normals of a draw": lambda: torch.randn(P + Q),
        "f of them": lambda: signed_sqrt(normals),
        "normals of a draw for 32 rows": lambda: torch.randn(ROWS, P + Q),
        "f of them, 32 rows": lambda: signed_sqrt(many),
        "noisy weight in scratch memory": build_in_scratch,
        "noisy weight in fresh memory": lambda: torch.addcmul(mean, sigma * row, column),
    }
    with torch.no_grad():
        return {name: microseconds(run) for name, run in pieces.items()}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", default="not said")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    record = {
        **provenance(arguments.machine),
        "torch": torch.__version__,
        "microseconds": time_pieces(),
    }
    write_json(FILE, record)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
