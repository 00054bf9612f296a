"""What run.py measures: the cells of its tables, and the redraw of a whole agent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn

import noisynet
from noisynet.networks import NoiseSettings, build_q_network

from .contenders import Contender
from .timing import Cell, Spread, Timing, alternate, make_call, peak_bytes, rest_bytes

SHAPES = ((3136, 512), (512, 18), (2048, 2048))
BATCHES = {False: (1, 8, 32), True: (32, 256, 2048)}
# A layer with its own p×q noise for every row takes 13 GiB at batch 2048 of 3136→512.
MEMORY_LIMIT = 2 * 2**30
SMALL_BATCHES = (2, 4, 8)
ACTIONS = 18


def cells(shapes: list[tuple[int, int]]) -> Iterator[Cell]:
    """Yield every cell of the benchmark."""
    for inputs, outputs in shapes:
        for backward, batches in BATCHES.items():
            for batch in batches:
                yield Cell(inputs, outputs, batch, backward)


def expected_bytes(
    contender: Contender, layer: nn.Module, cell: Cell, device: torch.device, dtype: torch.dtype
) -> int:
    """Estimate the peak memory of a call at a large batch from that at small ones.

    Each row adds the same, except in a layer that changes its form between two of the batches: the
    smaller of the two slopes leaves that step out.
    """
    peaks = []
    for batch in SMALL_BATCHES:
        small = Cell(cell.inputs, cell.outputs, batch, cell.backward)
        contender.ready(layer, batch)
        call = make_call(layer, contender.redraw(layer), small, device, dtype)
        peaks.append(peak_bytes(call, device, gradients=cell.backward))
        layer.zero_grad(set_to_none=True)
    slopes = [
        (after - before) / (many - few)
        for (before, after), (few, many) in zip(
            pairwise(peaks), pairwise(SMALL_BATCHES), strict=True
        )
    ]
    return peaks[-1] + round((cell.batch - SMALL_BATCHES[-1]) * min(slopes))


def measure_cell(
    cell: Cell,
    competing: list[Contender],
    timing: Timing,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Measure one cell; return its rows, and who was skipped and why."""
    where = {
        "inputs": cell.inputs,
        "outputs": cell.outputs,
        "mode": cell.mode,
        "batch": cell.batch,
    }
    calls, skipped, memory = {}, [], {}
    taking_part: list[Contender] = []
    for contender in competing:
        layer = contender.make(cell.inputs, cell.outputs).to(device, dtype)
        expected = 0
        if cell.batch > SMALL_BATCHES[-1]:
            expected = expected_bytes(contender, layer, cell, device, dtype)
        if expected > MEMORY_LIMIT:
            reason = f"a call would take about {expected / 2**30:.0f} GiB"
            skipped.append({"name": contender.name, **where, "reason": reason})
            continue
        contender.ready(layer, cell.batch)
        call = make_call(layer, contender.redraw(layer), cell, device, dtype)
        peak = peak_bytes(call, device, gradients=cell.backward)
        memory[contender.name] = {"peak_bytes": peak, "rest_bytes": rest_bytes(layer)}
        calls[contender.name] = call
        taking_part.append(contender)
    seconds = alternate(calls, timing, device, gradients=cell.backward)
    rows = []
    for contender in taking_part:
        own = seconds[contender.name]
        ratios = [a / b for a, b in zip(own, seconds["linear"], strict=True)]
        rows.append(
            {
                "name": contender.name,
                "label": contender.label,
                "origin": contender.origin,
                "is_peer": contender.is_peer,
                "sharing": contender.sharing,
                "draw_kept": contender.kept,
                **where,
                "seconds": asdict(Spread.of(own)),
                "ratio": asdict(Spread.of(ratios)),
                "rounds": len(own),
                **memory[contender.name],
            }
        )
    return rows, skipped


def measure_redraws(timing: Timing, device: torch.device) -> list[dict[str, Any]]:
    """Time the redraw of a whole agent: one draw for all, and one for each of 8 environments."""
    calls, labels = {}, {}
    for rows in (None, 8):
        net = build_q_network((4, 84, 84), ACTIONS, noise=NoiseSettings()).to(device)
        noisynet.hold(net, rows=rows)
        key = str(rows)
        labels[key] = "resample(net)" + ("" if rows is None else f" after hold(net, rows={rows})")
        calls[key] = partial(noisynet.resample, net)
    seconds = alternate(calls, timing, device, gradients=True)
    return [
        {
            "label": labels[key],
            "rows": None if key == "None" else int(key),
            "seconds": asdict(Spread.of(values)),
        }
        for key, values in seconds.items()
    ]
