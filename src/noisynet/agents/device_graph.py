"""The same work again and again, launched as one: a CUDA graph, or plain calls elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

_PLAIN_RUNS = 3
"""Runs before the capture: they make what is made at first use, such as an optimizer's state."""


class DeviceGraph:
    """Work that takes and returns nothing, run again and again: it writes tensors in place.

    On a CUDA device the first runs are plain ones, on a stream of their own; then the work is
    captured in a graph, and each further run launches that. Every run counts, and none is done for
    practice. The work must not wait for the device, and what changes between runs must stand in
    tensors, which stay where they are: Python is not run any more. On other devices each run calls
    the work.

    Args:
        work: what is run.
        device: where it runs.
        generators: what the work draws from, beside the device's default one; each run goes on
            with their states, and they may be drawn from elsewhere between runs.
        before_capture: called once, before the work is captured.
    """

    def __init__(
        self,
        work: Callable[[], None],
        device: torch.device,
        *,
        generators: Sequence[torch.Generator] = (),
        before_capture: Callable[[], None] | None = None,
    ) -> None:
        self._work = work
        self._device = device
        self._generators = generators
        self._before_capture = before_capture
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream: torch.cuda.Stream | None = None
        self._plain_runs = 0

    @property
    def is_captured(self) -> bool:
        """Whether further runs launch a graph."""
        return self._graph is not None

    def run(self) -> None:
        """Do the work once; raises RuntimeError where it cannot be captured."""
        if self._device.type != "cuda":
            self._work()
            return
        with torch.cuda.device(self._device):
            if self._graph is None and self._plain_runs < _PLAIN_RUNS:
                self._run_plainly()
                return
            if self._graph is None:
                self._graph = self._captured()
            self._graph.replay()

    def _run_plainly(self) -> None:
        # The stream of the capture already: a gradient's sum belongs to the stream that it first
        # came on, and a capture may not wait for another one.
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            self._work()
        current.wait_stream(self._stream)
        self._plain_runs += 1

    def _captured(self) -> torch.cuda.CUDAGraph:
        if self._before_capture is not None:
            self._before_capture()
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, stream=self._stream):
            self._work()
        return graph
