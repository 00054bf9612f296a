"""A forward pass with fixed buffers, which a GPU can run as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .device_graph import DeviceGraph


class StaticForward:
    """A forward pass on a device for arrays that all have the same shape.

    On a GPU, a plain call launches each operation from Python, which for a few observations takes
    longer than the operations themselves; a graph launches them all at once. The function must
    neither wait for the device nor use random numbers.

    Args:
        forward: function from a tensor to tensors, on the device.
        device: device that it runs on.
    """

    def __init__(self, forward: Callable[[Tensor], tuple[Tensor, ...]], device: torch.device):
        self._forward = forward
        self._device = device
        self._graph = DeviceGraph(self._work, device)
        self._given: Tensor | None = None
        self._input: Tensor | None = None
        self._output: tuple[Tensor, ...] | None = None

    def __call__(self, array: np.ndarray) -> tuple[Tensor, ...]:
        """Return the function's outputs for an array, as copies.

        Raises ValueError if the shape differs from that of the first array.
        """
        if self._given is None or self._input is None:
            given = torch.from_numpy(array).clone()
            self._given = given.pin_memory() if self._device.type == "cuda" else given
            self._input = torch.empty_like(given, device=self._device)
        shape = tuple(self._given.shape)
        if array.shape != shape:
            raise ValueError(f"observation: got shape {array.shape}, expected {shape} as before")
        # The previous copy has ended, because the caller waited for the actions.
        self._given.copy_(torch.from_numpy(array))
        self._input.copy_(self._given, non_blocking=True)
        self._graph.run()
        assert self._output is not None, "the first call makes it"
        return tuple(one.clone() for one in self._output)

    def _work(self) -> None:
        assert self._input is not None, "work begins with an array"
        output = self._forward(self._input)
        if self._output is None:
            self._output = tuple(torch.empty_like(one) for one in output)
        for kept, one in zip(self._output, output, strict=True):
            kept.copy_(one)
