"""A forward pass from a buffer that stays: what a GPU runs as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .device_graph import DeviceGraph


class StaticForward:
    """A function of an array on a device, called again and again with arrays of the same shape.

    On a GPU a call from Python launches each of its operations, which takes longer than they do for
    the few observations that are acted on. The function must not wait for the device, nor draw.

    Args:
        forward: from a tensor to tensors, on the device.
        device: where it runs.
    """

    def __init__(self, forward: Callable[[Tensor], tuple[Tensor, ...]], device: torch.device):
        self._forward = forward
        self._device = device
        self._graph = DeviceGraph(self._work, device)
        self._given: Tensor | None = None
        self._input: Tensor | None = None
        self._output: tuple[Tensor, ...] | None = None

    def __call__(self, array: np.ndarray) -> tuple[Tensor, ...]:
        """Return what the function makes of an array, in tensors of their own.

        Raises ValueError for a shape other than that of the first one.
        """
        if self._given is None or self._input is None:
            given = torch.from_numpy(array).clone()
            self._given = given.pin_memory() if self._device.type == "cuda" else given
            self._input = torch.empty_like(given, device=self._device)
        shape = tuple(self._given.shape)
        if array.shape != shape:
            raise ValueError(f"observation: got shape {array.shape}, expected {shape} as before")
        # The copy before has ended: whoever acts waits for the actions.
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
