"""Compare the noisy linear layer on a GPU with nn.Linear: kernels, eager, compiled; as graphs.

    python -m benchmarks.gpu.layers --out FOLDER [--seconds 240]

rewrites FOLDER/layers.json and layers.md after each cell, so that a run that is cut off keeps what
it has measured. 3136→512, batches of 32 to 2048, in float32 and bfloat16. Each contender redraws at
each forward. Two times are measured: `eager`, a call from Python, where launches may cost more than
their work, and `graph`, the replay of the same call from a CUDA graph, where only the work counts.
A ratio is the median over rounds of a time divided by nn.Linear's in the same round. The
target: the graph of our layer with its kernels takes at most 1.25 times that of nn.Linear. Before
it is timed, each contender is compared with the same layer in float64. With --device cpu --brief
the script runs without a GPU and without graphs, to see that it works.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from noisynet.layers import (
    FactorisedNoise,
    IndependentNoise,
    NoisyLinear,
    noisy_linear,
)
from noisynet.layers.kernels import dispatch

from ..layers.contenders import Contender, contenders
from ..layers.timing import Call, Cell, Spread, Timing, alternate, make_call, synchronise
from ..provenance import machine_in_words, provenance, write_json
from ..tables import markdown_table

SHAPE = (3136, 512)
BATCHES = (32, 128, 512, 2048)
DTYPES = ("float32", "bfloat16")
TARGET, TARGETS_OF = 1.25, "triton-factorised"
# Compiling takes seconds for every cell: one state stands for all.
LEFT_OUT = ("compiled-factorised-rows", "compiled-independent")
TIMING = Timing(rounds=21, seconds=1.0, slice_seconds=2e-3, seed=0)
BRIEF = Timing(rounds=2, seconds=1.0, slice_seconds=1e-5, seed=0, least_rounds=2)


@dataclass(frozen=True)
class Captured:
    """The replay of a call from a CUDA graph.

    It keeps the call, and so the tensors that the call reads, since a capture releases free memory.
    """

    graph: torch.cuda.CUDAGraph
    call: Call

    def __call__(self) -> None:
        """Launch the graph."""
        self.graph.replay()


def graph_of(call: Call) -> Captured:
    """Capture a call after running it on a side stream, as PyTorch's notes require."""
    if not torch.cuda.is_available():
        raise RuntimeError("a graph needs a GPU")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return Captured(graph, call)


def error_of(
    layer: nn.Module, batch: int, device: torch.device, dtype: torch.dtype
) -> float | None:
    """Return the relative error of a layer's output under its own noise, against float64.

    None for a layer that does not run with our kernels.
    """
    if not isinstance(layer, NoisyLinear):
        return None
    noisy = layer
    x = torch.randn(batch, noisy.in_features, device=device, dtype=dtype)
    with torch.no_grad():
        noise = noisy.noise_in_force(x)
        assert isinstance(noise, FactorisedNoise | IndependentNoise)
        y = noisy_linear(x, noisy.weight, noisy.bias, noisy.weight_sigma, noisy.bias_sigma, noise)
        exact = copy.deepcopy(noisy).double()
        of_bias = noise.bias_noise()
        assert of_bias is not None
        drawn: FactorisedNoise | IndependentNoise
        if isinstance(noise, FactorisedNoise):
            drawn = FactorisedNoise(noise.input.double(), noise.output.double())
        else:
            drawn = IndependentNoise(noise.weight_noise().double(), of_bias.double())
        expected = noisy_linear(
            x.double(), exact.weight, exact.bias, exact.weight_sigma, exact.bias_sigma, drawn
        )
    return float((y.double() - expected).norm() / expected.norm())


def tried(make: Callable[[], Call], device: torch.device) -> Call | str:
    """Build a call and try it; return it, or why it fails."""
    try:
        call = make()
        call()
        synchronise(device)
    except Exception as error:  # noqa: BLE001  # others go on without it
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
    return call


def measure(
    cell: Cell,
    competing: list[Contender],
    timing: Timing,
    device: torch.device,
    dtype: torch.dtype,
) -> list[dict[str, Any]]:
    """Measure one cell: eager calls and graphs, each in alternation among themselves."""
    rows: dict[str, dict[str, Any]] = {}
    eager: dict[str, Call] = {}
    graphs: dict[str, Call] = {}
    with torch.set_grad_enabled(cell.backward):
        for contender in competing:
            layer = contender.make(cell.inputs, cell.outputs).to(device, dtype)
            contender.ready(layer, cell.batch)
            row = rows[contender.name] = {
                "name": contender.name,
                "label": contender.label,
                "mode": cell.mode,
                "batch": cell.batch,
                "dtype": str(dtype).removeprefix("torch."),
                "error": error_of(layer, cell.batch, device, dtype),
            }

            def plain(layer: nn.Module = layer, contender: Contender = contender) -> Call:
                return make_call(layer, contender.redraw(layer), cell, device, dtype)

            def captured(plain: Callable[[], Call] = plain) -> Call:
                return graph_of(plain())

            for kind, make, calls in (("eager", plain, eager), ("graph", captured, graphs)):
                call = tried(make, device)
                if isinstance(call, str):
                    row[kind] = {"fault": call}
                else:
                    calls[contender.name] = call
    for kind, calls in (("eager", eager), ("graph", graphs)):
        seconds = alternate(calls, timing, device, gradients=cell.backward)
        for name, own in seconds.items():
            entry: dict[str, Any] = {"seconds": asdict(Spread.of(own)), "rounds": len(own)}
            if "linear" in seconds:
                ratios = [a / b for a, b in zip(own, seconds["linear"], strict=True)]
                entry["ratio"] = asdict(Spread.of(ratios))
            rows[name][kind] = entry
    return list(rows.values())


def judged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare each cell of our layer with the target."""
    return [
        {
            **{key: row[key] for key in ("dtype", "mode", "batch")},
            "limit": TARGET,
            "measured": row["graph"]["ratio"]["median"],
            "met": row["graph"]["ratio"]["median"] <= TARGET,
        }
        for row in rows
        if row["name"] == TARGETS_OF and "ratio" in row["graph"]
    ]


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return a table: a line for each contender and cell."""
    heads = ("layer", "dtype", "mode", "batch", "eager: µs", "ratio", "graph: µs", "ratio")
    lines: list[list[str]] = []
    for row in rows:
        figures = []
        for kind in ("eager", "graph"):
            entry = row[kind]
            if "fault" in entry:
                figures += ["–", "–"]
                continue
            figures.append(f"{entry['seconds']['median'] * 1e6:.1f}")
            figures.append(f"{entry['ratio']['median']:.2f}" if "ratio" in entry else "–")
        lines.append([row["label"], row["dtype"], row["mode"], str(row["batch"]), *figures])
    return "\n".join(markdown_table(heads, lines, left=3)) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="What does the noisy layer cost on a GPU?")
    parser.add_argument(
        "--out", type=Path, required=True, help="the folder for layers.json and .md"
    )
    parser.add_argument("--seconds", type=float, default=240.0, help="start no cell after so many")
    parser.add_argument("--machine", help="in words; by default as the system names it")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--brief", action="store_true", help="tiny sizes: does it work at all?")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device: this measures a GPU")
    device = torch.device(arguments.device)
    timing = BRIEF if arguments.brief else TIMING
    torch.manual_seed(0)
    names = ["triton-*", "eager-*", "compiled-*"]
    competing = [c for c in contenders(names, gpu=True)[0] if c.name not in LEFT_OUT]
    record: dict[str, Any] = {
        **provenance(arguments.machine or machine_in_words(device)),
        "torch": torch.__version__,
        "triton": dispatch.is_installed(),
        "float32_products": torch.get_float32_matmul_precision(),
        "timing": asdict(timing),
    }
    began = time.perf_counter()
    rows: list[dict[str, Any]] = []
    shape = (24, 16) if arguments.brief else SHAPE
    cells = [
        (Cell(*shape, batch, backward), name)
        for batch in ((4,) if arguments.brief else BATCHES)
        for name in DTYPES
        for backward in (True, False)
    ]
    left = [f"{name}, {cell.mode}, batch {cell.batch}" for cell, name in cells]
    for cell, name in cells:
        if time.perf_counter() - began > arguments.seconds:
            break
        rows += measure(cell, competing, timing, device, getattr(torch, name))
        measured = left.pop(0)
        record |= {"targets": judged(rows), "not_measured": left, "rows": rows}
        write_json(arguments.out / "layers.json", record)
        (arguments.out / "layers.md").write_text(markdown(rows))
        print(f"measured {measured}", flush=True)
    print(markdown(rows))


if __name__ == "__main__":
    main()
