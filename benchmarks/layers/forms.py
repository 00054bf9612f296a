"""Time the forms of a factorised layer whose draw is shared by the batch, for batches of 1 to 64.

    python -m benchmarks.layers.forms --machine "…"

writes results/layers/forms.json, from which the bounds in layers/kernels/dispatch.py were read.
Times are medians over rounds in which the forms take turns.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from noisynet import NoisyLinear
from noisynet.layers import FactorisedNoise
from noisynet.layers.functional import reference_linear
from noisynet.layers.kernels.dispatch import SHARED_FORMS

from ..provenance import RESULTS, provenance, write_json

FILE = RESULTS / "layers" / "forms.json"
SHAPES = ((3136, 512), (512, 18), (512, 512), (2048, 2048), (256, 256), (64, 64))
ROWS = (1, 2, 4, 8, 12, 16, 24, 32, 64)
Apply = Callable[..., Tensor]


def call(form: Apply, layer: NoisyLinear, input: Tensor, *, learns: bool) -> Callable[[], None]:
    """Return a function that draws, applies the form and, where it learns, runs the backward."""
    gradient = torch.ones(len(input), layer.out_features)

    def run() -> None:
        noise = layer.noise_in_force()
        assert isinstance(noise, FactorisedNoise)
        (weights,) = layer.weights()
        if learns:
            layer.zero_grad(set_to_none=True)
            form(input.requires_grad_(), weights, noise).backward(gradient)
            input.grad = None
        else:
            with torch.no_grad():
                form(input, weights, noise)

    return run


def seconds(run: Callable[[], None], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def compare(shape: tuple[int, int], rows: int, *, learns: bool, rounds: int) -> dict[str, object]:
    """Time the forms in turns."""
    layer = NoisyLinear(*shape)
    runs = {
        name: call(form or reference_linear, layer, torch.randn(rows, shape[0]), learns=learns)
        for name, form in SHARED_FORMS.items()
    }
    for run in runs.values():
        seconds(run, 3)
    calls = max(1, int(0.003 / seconds(runs["one product"], 3)))
    times: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for _ in range(rounds):
        random.shuffle(names)
        for name in names:
            # The first call is not timed: it finds the caches as the form before left them.
            seconds(runs[name], 1)
            times[name].append(seconds(runs[name], calls))
    return {
        "shape": list(shape),
        "rows": rows,
        "work": "learns" if learns else "acts",
        "microseconds": {
            name: round(statistics.median(found) * 1e6, 1) for name, found in times.items()
        },
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Which form of a factorised layer is cheaper?")
    parser.add_argument("--machine", default="not said")
    parser.add_argument("--rounds", type=int, default=25)
    arguments = parser.parse_args()
    results = []
    for learns in (False, True):
        for shape in SHAPES:
            for rows in ROWS:
                results.append(compare(shape, rows, learns=learns, rounds=arguments.rounds))
                print(results[-1], flush=True)
    record = {
        **provenance(arguments.machine),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "results": results,
    }
    write_json(FILE, record)


if __name__ == "__main__":
    main()
