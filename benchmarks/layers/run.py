"""Measure noisynet's layers against nn.Linear and the noisy layers of others: speed and memory.

    python -m benchmarks.layers.run --threads 2 --machine "…"

prints tables and writes results/layers/<device>.json. TorchRL, Tianshou and PFRL take part where
they are installed (`.venv/bin/pip install torchrl tianshou pfrl`). timing.py defines what is timed
and how, contenders.py the contenders, report.py the targets.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..provenance import RESULTS, machine_in_words, provenance, write_json
from .cells import SHAPES, cells, measure_cell, measure_redraws
from .contenders import contenders, fault_of
from .report import (
    cell_tables,
    markdown,
    plain_text,
    redraw_table,
    target_table,
    targets,
)
from .timing import Timing, start_profiler

FULL = Timing(rounds=101, seconds=40.0, slice_seconds=3e-3, seed=0)
QUICK = Timing(rounds=2, seconds=1.0, slice_seconds=1e-5, seed=0, least_rounds=2)


def shape(text: str) -> tuple[int, int]:
    """Read a shape such as "3136x512"."""
    inputs, outputs = text.split("x")
    return int(inputs), int(outputs)


def options() -> argparse.ArgumentParser:
    """Build the parser of the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu (the default) or cuda")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64", "bfloat16"])
    parser.add_argument("--threads", type=int, help="threads of PyTorch; by default its own choice")
    parser.add_argument("--rounds", type=int, help=f"at most; by default {FULL.rounds}")
    parser.add_argument("--quick", action="store_true", help="a tiny shape: does it work at all?")
    parser.add_argument(
        "--shape", type=shape, action="append", help="such as 3136x512; may be repeated"
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help="a contender to compare with nn.Linear, or a pattern: 'noisynet-*'; may be repeated",
    )
    parser.add_argument(
        "--out", type=Path, help="the JSON file; needed with --quick, --shape or --only"
    )
    parser.add_argument("--markdown", type=Path, help="write the tables for the pages here")
    parser.add_argument("--commit", help="the commit measured; by default the one that git names")
    parser.add_argument("--machine", help="in words: processor, cores, what else ran")
    return parser


def main() -> None:
    """Measure, print and write."""
    # Without it the profiler writes a line on standard error whenever it starts or stops.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    parser = options()
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    dtype: torch.dtype = getattr(torch, arguments.dtype)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    start_profiler()
    timing = QUICK if arguments.quick else FULL
    if arguments.rounds is not None:
        if arguments.rounds < 2:
            parser.error(f"--rounds: got {arguments.rounds}, expected at least 2")
        timing = Timing(
            rounds=arguments.rounds,
            seconds=timing.seconds,
            slice_seconds=timing.slice_seconds,
            seed=timing.seed,
        )
    shapes = arguments.shape or ([(24, 16)] if arguments.quick else list(SHAPES))
    try:
        competing, absent = contenders(arguments.only, gpu=device.type == "cuda")
    except ValueError as error:
        parser.error(str(error))
    skipped: list[dict[str, Any]] = [
        {"name": name, "reason": reason} for name, reason in absent.items()
    ]
    for contender in list(competing):
        fault = fault_of(contender, device)
        if fault is not None:
            competing.remove(contender)
            skipped.append({"name": contender.name, "reason": fault})
    load = os.getloadavg()[0]
    rows: list[dict[str, Any]] = []
    for cell in cells(shapes):
        measured, left_out = measure_cell(cell, competing, timing, device, dtype)
        rows += measured
        skipped += left_out
        print(f"measured {cell.inputs}→{cell.outputs}, {cell.mode}, batch {cell.batch}", flush=True)
    redraws = measure_redraws(timing, device)
    judged = targets(rows, redraws) if device.type == "cpu" else []
    result = {
        **provenance(arguments.machine or machine_in_words(device), arguments.commit),
        "load_average_before": round(load, 2),
        "torch": torch.__version__,
        "device": device.type,
        "dtype": arguments.dtype,
        "threads": torch.get_num_threads(),
        "timing": asdict(timing),
        "input_requires_grad": True,
        "targets": judged,
        "redraws": redraws,
        "skipped": skipped,
        "rows": rows,
    }
    out: Path | None = arguments.out
    if out is None and not (arguments.quick or arguments.only or arguments.shape):
        out = RESULTS / "layers" / f"{device.type}.json"
    if out is not None:
        write_json(out, result)
    tables = [
        *([target_table(judged)] if judged else []),
        redraw_table(redraws),
        *cell_tables(rows, skipped),
    ]
    print()
    for table in tables:
        print(plain_text(table))
    for entry in skipped:
        if "batch" not in entry:
            print(f"left out: {entry['name']}: {entry['reason']}")
    if arguments.markdown is not None:
        arguments.markdown.write_text("\n".join(markdown(table) for table in tables))


if __name__ == "__main__":
    main()
