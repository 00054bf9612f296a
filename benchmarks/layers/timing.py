"""How run.py measures: time in alternation, and the memory that one call takes.

A call is what a training step or an action costs: the redraw, the forward, and for
`forward+backward` also `zero_grad(set_to_none=True)` before and the backward after, from a fixed
gradient of the output down to all parameters and to the input, as in a hidden layer. The forward
alone runs under `torch.no_grad()`, as acting does.

Time: in each round every contender is timed once, for as many calls as fill a few milliseconds, in
a newly shuffled order. The call before them is not timed: it finds the caches full of what others
used. A contender's ratio is the median, over the rounds, of its time divided by that of nn.Linear
in the same round, so that a slow moment of the machine affects both.

Memory: the most that one call allocates above what existed before it: noise, noisy weights, the
output, gradients. Parameters, buffers, a held draw and the input exist before; `rest_bytes` counts
all of these except the input. On CUDA, PyTorch counts the peak; on the CPU, its profiler reports
every allocation and release of a tensor, and the peak of their running sum is taken. The call is
made in a new thread, so that memory which a layer keeps for each thread is allocated again and
counts. What a library allocates outside PyTorch (the scratch memory of a matrix product) does not
count.
"""

from __future__ import annotations

import gc
import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import noisynet

Call = Callable[[], None]


@dataclass(frozen=True)
class Cell:
    """One thing to measure: the shape of the layer, the batch, with or without backward."""

    inputs: int
    outputs: int
    batch: int
    backward: bool

    @property
    def mode(self) -> str:
        """The name of what is timed."""
        return "forward+backward" if self.backward else "forward"


@dataclass(frozen=True)
class Timing:
    """How long to measure: rounds at most, seconds for a cell, seconds for one slice."""

    rounds: int
    seconds: float
    slice_seconds: float
    seed: int
    least_rounds: int = 7


@dataclass(frozen=True)
class Spread:
    """The median and the quartiles over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Compute the median and the quartiles of at least two values."""
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


def make_call(
    layer: nn.Module, redraw: Call, cell: Cell, device: torch.device, dtype: torch.dtype
) -> Call:
    """Return the call to time, with its own input and gradient."""
    input = torch.randn(cell.batch, cell.inputs, device=device, dtype=dtype)
    if not cell.backward:

        def forward() -> None:
            redraw()
            layer(input)

        return forward

    gradient = torch.randn(cell.batch, cell.outputs, device=device, dtype=dtype)
    input.requires_grad_()

    def forward_and_backward() -> None:
        layer.zero_grad(set_to_none=True)
        input.grad = None
        redraw()
        layer(input).backward(gradient)

    return forward_and_backward


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_calls(call: Call, count: int, device: torch.device) -> float:
    """Return the seconds that one of `count` calls takes."""
    synchronise(device)
    began = time.perf_counter()
    for _ in range(count):
        call()
    synchronise(device)
    return (time.perf_counter() - began) / count


def calibrate(call: Call, timing: Timing, device: torch.device) -> int:
    """Warm up, and return how many calls fill a slice."""
    seconds = time_calls(call, 1, device)
    for _ in range(3):
        count = max(1, math.ceil(timing.slice_seconds / seconds))
        seconds = min(seconds, time_calls(call, count, device))
    return max(1, math.ceil(timing.slice_seconds / seconds))


def alternate(
    calls: dict[str, Call], timing: Timing, device: torch.device, *, gradients: bool
) -> dict[str, list[float]]:
    """Time the calls in alternation; return the seconds per call of each, round by round."""
    shuffler = random.Random(timing.seed)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    gc.collect()
    gc.disable()
    try:
        with torch.set_grad_enabled(gradients):
            counts = {name: calibrate(call, timing, device) for name, call in calls.items()}
            began = time.perf_counter()
            for done in range(timing.rounds):
                if done >= timing.least_rounds and time.perf_counter() - began > timing.seconds:
                    break
                shuffler.shuffle(order)
                for name in order:
                    calls[name]()
                    seconds[name].append(time_calls(calls[name], counts[name], device))
    finally:
        gc.enable()
    return seconds


def start_profiler() -> None:
    """Start PyTorch's profiler once in the main thread, as it must before other threads use it."""
    with profile(activities=[ProfilerActivity.CPU]):
        pass


def peak_bytes(call: Call, device: torch.device, *, gradients: bool) -> int:
    """Return the most bytes that a call allocates above what existed before it."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        if device.type == "cuda":
            return thread.submit(_count_on_cuda, call, device, gradients).result()
        return thread.submit(_count_on_cpu, call, gradients).result()


def _count_on_cuda(call: Call, device: torch.device, gradients: bool) -> int:
    synchronise(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    with torch.set_grad_enabled(gradients):
        call()
    synchronise(device)
    return torch.cuda.max_memory_allocated(device) - before


def _count_on_cpu(call: Call, gradients: bool) -> int:
    with (
        torch.set_grad_enabled(gradients),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler,
    ):
        call()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        events = json.loads(file.read_text())["traceEvents"]
    changes = sorted(
        (event["ts"], event["args"]["Ev Idx"], event["args"]["Bytes"])
        for event in events
        if event["name"] == "[memory]" and event["args"]["Device Type"] == 0
    )
    return max(0, *accumulate(change for *_, change in changes))


def rest_bytes(layer: nn.Module) -> int:
    """Return the bytes of parameters, buffers and the held draw."""
    tensors = [*layer.parameters(), *layer.buffers()]
    drawn = noisynet.held(layer) if noisynet.noisy_layers(layer) else None
    if drawn is not None:
        tensors += drawn.flats
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
