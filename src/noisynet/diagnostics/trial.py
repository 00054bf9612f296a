"""Trying a single layer out: the gradient of a redrawn forward, and where its draws are made."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from ..layers import NoisyLayer, hold, resample
from .probe import see
from .recognise import Found

Result = Literal["same", "other", "error"]


def redrawn_before_backward(found: Found) -> Result | None:
    """Compare σ's gradient with that of the same forward whose noise is redrawn before backward.

    None where the layer cannot be run by itself, or has no noise now.
    """
    noise = see(found)
    weight = found.weights()[0][1]
    if weight.ndim != 2 or noise is None or not noise.is_on or not weight.requires_grad:
        return None
    layer = found.module
    if isinstance(layer, nn.RNNCellBase):
        return None
    if isinstance(layer, NoisyLayer):
        layer = _with_one_draw(layer)
        weight = found.tensors(found.sigmas, layer)[0]
    x = torch.ones(3, found.inputs).to(weight)
    with torch.enable_grad():
        try:
            output = layer(x)
            (at_once,) = torch.autograd.grad(output.sum(), weight, retain_graph=True)
            if isinstance(layer, NoisyLayer):
                resample(layer)
            elif found.redraw is not None:
                getattr(layer, found.redraw)()
            layer(x)
        except (RuntimeError, TypeError, ValueError):
            return None
        try:
            (later,) = torch.autograd.grad(output.sum(), weight)
        except RuntimeError:
            return "error"
    return "same" if torch.allclose(at_once, later, rtol=1e-3, atol=1e-5) else "other"


def _with_one_draw(layer: NoisyLayer) -> NoisyLayer:
    """Copy a layer that may hold a draw for each of a number of rows."""
    copied = copy.deepcopy(layer)
    hold(copied)
    return copied


class _MadeOnCpu(TorchFunctionMode):
    """Note the largest tensor of floats that is made on the CPU inside."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least = least
        self.largest = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and made.device.type == "cpu" and made.is_floating_point():
            self.largest = max(self.largest, made.numel() if made.numel() >= self.least else 0)
        return made


def numbers_made_on_cpu(found: Found) -> int:
    """Count the numbers that a layer makes on the CPU although it lies elsewhere; 0 for none.

    A copy on the `meta` device plays the layer on a GPU: it computes no values. 0 also where the
    copy cannot be run.
    """
    weight = found.weights()[0][1]
    if weight.ndim != 2:
        return 0
    try:
        layer = copy.deepcopy(found.module).to("meta")
        layer.train()
        x = torch.empty(3, found.inputs, device="meta", dtype=weight.dtype)
        steps: list[Callable[[], Any]] = [lambda: functional_call(layer, {}, (x,))]
        if not isinstance(layer, NoisyLayer) and found.redraw is not None:
            steps.insert(0, getattr(layer, found.redraw))
        # Fewer numbers than a layer draws at least are no draw.
        with _MadeOnCpu(min(found.inputs, found.outputs, 2)) as made:
            for step in steps:
                step()
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError):
        return 0
    return made.largest
