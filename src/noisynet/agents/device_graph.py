"""Repeated work on a device: one CUDA graph on a GPU, plain calls elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

_PLAIN_RUNS = 3
"""Runs before the capture, which create what is created at first use, such as optimizer state."""


class DeviceGraph:
    """A function without arguments that runs repeatedly and writes its results in place.

    On a CUDA device the first runs call the function, on a separate stream; it is then captured in
    a graph, which each later run launches. Every run does the work once: there are no dry runs. The
    function must not wait for the device. Whatever changes between runs must be in tensors that
    keep their addresses, because Python code no longer runs after the capture. On other devices
    each run calls the function.

    Args:
        work: function to run.
        device: device that it runs on.
        generators: generators that the work draws from, other than the device's default one; each
            run advances their states, and other code may draw from them between runs.
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

    def run(self) -> None:
        """Do the work once; raises RuntimeError if it cannot be captured."""
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
        # On the stream of the later capture: autograd accumulates a gradient on the stream where it
        # first did so, and a capture must not wait for another stream.
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
