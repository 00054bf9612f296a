"""The state of the noise in one noisy layer: fresh, held or off, and its scale.

The functions of states.py move layers between these states. Neither `train()` nor `eval()` plays
any part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from .kernels.tracing import needs_plain_operations, warn_of_frozen_draw
from .noise import LayerNoise
from .tensor_bytes import tensor_from_bytes, tensor_to_bytes

if TYPE_CHECKING:
    from .layer import NoisyLayer


class Off:
    """The override under which the means alone are in force."""


OFF = Off()


class NoiseState:
    """The state of one layer's noise.

    `held` is the flat draw that is held, or None for a fresh one at every forward; `override` is
    what a context manager puts in its place for a while. Each has a `batch_first`, which says where
    its rows are. Copies keep the held draw, in memory of their own, but not the override, since the
    context manager would never remove it from a copy. `scale` multiplies whatever ε is in force,
    and `control` says in words who sets it. Draws are kept and returned without the scale.
    """

    __slots__ = (
        "batch_first",
        "control",
        "held",
        "kept",
        "multiplier",
        "override",
        "override_batch_first",
        "per_row",
        "scale",
        "static",
    )

    def __init__(self) -> None:
        self.scale = 1.0
        self.control: str | None = None
        # The scale as a tensor at a fixed address, which compiled forwards and CUDA graphs read.
        # None until a scale other than 1 is set, or a control that may set one, so that a layer
        # without a scale pays nothing.
        self.multiplier: Tensor | None = None
        self.held: Tensor | None = None
        self.per_row = False
        self.batch_first = False
        self.static = False
        self.override: Tensor | Off | None = None
        self.override_batch_first = False
        self.kept: tuple[Tensor, int, LayerNoise] | None = None

    def hold(self, flat: Tensor, *, static: bool = False, batch_first: bool = False) -> None:
        """Hold a flat draw, shape (size,) or (rows, size), at a fixed address if `static`."""
        if (
            static
            and self.static
            and self.held is not None
            and (self.held.shape == flat.shape and self.held.device == flat.device)
        ):
            self.held.copy_(flat)
        else:
            self.held = flat.clone() if static else flat
        if batch_first != self.batch_first:
            self.kept = None
        self.static, self.batch_first = static, batch_first
        self.per_row = False

    def release(self, *, per_row: bool, batch_first: bool = False) -> None:
        """Return to a fresh draw at every forward, shared by the batch or one per row."""
        self.held = self.kept = None
        self.static = False
        self.per_row, self.batch_first = per_row, batch_first

    @torch.inference_mode(False)
    def rescale(self, scale: float, control: str | None, reference: Tensor) -> None:
        """Multiply ε by a scale from the next forward on, even the ε of a draw that is held."""
        self.scale, self.control = scale, control
        self.kept = None
        if self.multiplier is not None:
            self.multiplier.fill_(scale)
        elif scale != 1 or control is not None:
            self.multiplier = _multiplier(scale, reference)

    def scaled(self, noise: LayerNoise) -> LayerNoise:
        """Return a layer's noise times the scale."""
        return noise if self.multiplier is None else noise.scaled(self.multiplier)

    def noise_of_held(self, layer: NoisyLayer) -> LayerNoise:
        """Return the held draw as the layer's noise, scaled, and cache it for later forwards.

        The cache is neither saved nor copied. It is rebuilt if the held tensor has been written to
        since.
        """
        flat, kept = self.held, self.kept
        assert flat is not None, "a draw is held"
        if torch.compiler.is_compiling():
            warn_of_frozen_draw()
            return self.scaled(layer.noise_spec().unflatten(flat, self.batch_first))
        if kept is not None and kept[0] is flat and kept[1] == flat._version:
            return kept[2]
        noise = layer.noise_spec().unflatten(flat, self.batch_first)
        if needs_plain_operations(flat) or flat.is_inference():
            return self.scaled(noise)
        if torch.is_inference_mode_enabled() or flat.requires_grad:
            # Forwards that learn use the cache, too, even if the first is under inference_mode.
            with torch.inference_mode(False), torch.no_grad():
                noise = self.scaled(layer.noise_to_keep(noise))
        else:
            noise = self.scaled(layer.noise_to_keep(noise))
        self.kept = (flat, flat._version, noise)
        return noise

    @torch.inference_mode(False)
    def follow(self, layer: NoisyLayer) -> None:
        """Move scale and held draw to the device and dtype of the layer's weight.

        A draw held on the meta device has no values to move, so a new one is made.
        """
        reference = layer.noise_reference
        former = self.multiplier
        if former is not None or self.scale != 1:
            moved = _multiplier(self.scale, reference)
            if former is None or (former.device, former.dtype) != (moved.device, moved.dtype):
                self.multiplier, self.kept = moved, None
        if self.held is None:
            return
        if self.held.is_meta and not reference.is_meta:
            self.held = layer.noise_spec().draw(
                self.held.shape[:-1], device=reference.device, dtype=reference.dtype
            )
        else:
            self.held = self.held.to(device=reference.device, dtype=reference.dtype)

    @torch.inference_mode(False)
    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copy = type(self)()
        copy.held = None if self.held is None else self.held.detach().clone()
        copy.per_row, copy.static, copy.batch_first = self.per_row, self.static, self.batch_first
        copy.scale, copy.control = self.scale, self.control
        copy.multiplier = None if self.multiplier is None else self.multiplier.clone()
        return copy

    def __getstate__(self) -> tuple[bytes | None, bool, bool, bool, float, str | None]:
        held = None if self.held is None else tensor_to_bytes(self.held)
        return held, self.per_row, self.static, self.batch_first, self.scale, self.control

    @torch.inference_mode(False)
    def __setstate__(self, state: tuple[Any, ...]) -> None:
        # Pickles from before `batch_first` have three parts, those from before `scale` four.
        later: tuple[Any, ...] = (False, 1.0, None)[len(state) - 3 :]
        held, self.per_row, self.static, *rest = (*state, *later)
        self.batch_first, self.scale, self.control = rest
        # Its former device may not exist here; the layer moves it to that of its weight.
        self.held = None if held is None else tensor_from_bytes(held)
        self.override = self.kept = self.multiplier = None
        self.override_batch_first = False


def _multiplier(scale: float, reference: Tensor) -> Tensor:
    """Return a scale as a tensor on the weight's device.

    It is at least float32, so the scale keeps its digits beside half-precision weights, and has no
    dimensions, so it does not promote them.
    """
    dtype = torch.promote_types(reference.dtype, torch.float32)
    return torch.tensor(scale, device=reference.device, dtype=dtype)
