"""Trials of a single layer: the gradient of a redrawn forward, and where its draws are made."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from ..layers import NoisyLayer, hold
from .read_noise import read_noise, redraw_layer
from .recognise import RecognisedLayer

Result = Literal["same", "other", "error"]


def redrawn_before_backward(found: RecognisedLayer) -> Result | None:
    """Compare the gradient of σ with its gradient after a redraw between forward and backward.

    "other" means that they differ; "error", that autograd refused to compute the second. Returns
    None if the layer cannot be run by itself, or has no noise now.
    """
    noise = read_noise(found)
    weight = found.weights()[0][1]
    if weight.ndim != 2 or noise is None or not noise.is_on or not weight.requires_grad:
        return None
    layer = found.module
    if isinstance(layer, nn.RNNCellBase | nn.RNNBase):
        return None
    if isinstance(layer, NoisyLayer):
        # A copy that holds one draw: the layer may hold one per row, for another number of rows.
        layer = copy.deepcopy(layer)
        hold(layer)
        weight = found.tensors(found.sigmas, layer)[0]
    x = weight.new_ones(3, found.inputs)
    with torch.enable_grad():
        try:
            output = layer(x)
            (at_once,) = torch.autograd.grad(output.sum(), weight, retain_graph=True)
            redraw_layer(found, layer)
            layer(x)
        except (RuntimeError, TypeError, ValueError):
            # The layer is another library's, and needs more than its input.
            return None
        try:
            (later,) = torch.autograd.grad(output.sum(), weight)
        except RuntimeError:
            # Autograd noticed that the redraw overwrote a tensor that backward needs.
            return "error"
    return "same" if torch.allclose(at_once, later, rtol=1e-3, atol=1e-5) else "other"


class _MadeOnCpu(TorchFunctionMode):
    """Mode that notes the size of the largest float tensor made on the CPU."""

    largest = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and made.device.type == "cpu" and made.is_floating_point():
            self.largest = max(self.largest, made.numel())
        return made


def largest_cpu_tensor(found: RecognisedLayer) -> int:
    """Return the size of the largest tensor that a layer on another device makes on the CPU.

    A copy on the `meta` device, which computes no values, stands for the layer on a GPU. Returns 0
    if nothing is made on the CPU, for a convolution, and if the copy cannot be run.
    """
    weight = found.weights()[0][1]
    if weight.ndim != 2:
        return 0
    try:
        layer = copy.deepcopy(found.module).to("meta")
        layer.train()
        x = torch.empty(3, found.inputs, device="meta", dtype=weight.dtype)
        with _MadeOnCpu() as made:
            if not isinstance(layer, NoisyLayer):
                redraw_layer(found, layer)
            functional_call(layer, {}, (x,))
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError):
        # The layer is another library's, and cannot be copied, moved or run without values.
        return 0
    # Factorised noise draws p and q numbers, independent noise more: fewer are not a draw.
    return made.largest if made.largest >= max(found.inputs, found.outputs) else 0
