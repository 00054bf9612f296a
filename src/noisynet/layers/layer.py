"""The three states of a layer's noise: fresh, held, off. The thin holder above the pure functions.

`NoisyLayer` is what every noisy layer is: it says what it draws, and which noise is in force. The
functions of control.py move layers between states. Neither `train()` nor `eval()` plays any part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .draw import tensor_from_bytes, tensor_to_bytes
from .noise import LayerNoise, LayerSpec, NoiseKind
from .kernels.tracing import is_traced, snapshot

MEANS = {"weight", "bias", "weight_ih", "weight_hh", "bias_ih", "bias_hh"}
"""How the layers that can be noisy name their means."""


class Off:
    """Mark the means alone as what is in force."""


OFF = Off()


class NoiseState:
    """Hold what is in force in one layer.

    `held` is the flat draw that is held, or None for a fresh one at every forward; `override` is
    what a context manager puts above it for a while. Copies keep what is held, in memory of their
    own, and forget the override: its end would never reach them.
    """

    __slots__ = ("held", "kept", "override", "per_row", "static")

    def __init__(self) -> None:
        self.held: Tensor | None = None
        self.per_row = False
        self.static = False
        self.override: Tensor | Off | None = None
        self.kept: tuple[Tensor, int, LayerNoise] | None = None

    def hold(self, flat: Tensor, *, static: bool = False) -> None:
        """Hold a flat draw of shape (size,) or (rows, size); `static` keeps its address."""
        if (
            static
            and self.static
            and self.held is not None
            and (self.held.shape == flat.shape and self.held.device == flat.device)
        ):
            self.held.copy_(flat)
        else:
            self.held = flat.clone() if static else flat
        self.static = static
        self.per_row = False

    def release(self, *, per_row: bool) -> None:
        """Go back to a fresh draw at every forward, shared by the batch or one per row."""
        self.held = self.kept = None
        self.static = False
        self.per_row = per_row

    def noise_of_held(self, layer: NoisyLayer) -> LayerNoise:
        """View the held draw as the layer's noise, the same view at every forward.

        Like the draw, what is kept is neither saved nor copied. It is of the tensor as it was: one
        that was written into is viewed anew.
        """
        flat, kept = self.held, self.kept
        assert flat is not None, "asked where a draw is held"
        if torch.compiler.is_compiling():
            return layer.noise_spec().unflatten(flat)
        if kept is not None and kept[0] is flat and kept[1] == flat._version:
            return kept[2]
        noise = layer.noise_spec().unflatten(flat)
        if is_traced(flat) or flat.is_inference():
            return noise
        # Kept for forwards that learn, too, though the first may be under inference_mode.
        with torch.inference_mode(False), torch.no_grad():
            noise = layer.noise_to_keep(noise)
        self.kept = (flat, flat._version, noise)
        return noise

    def follow(self, layer: NoisyLayer) -> None:
        """Move what is held to the device and dtype of the layer's weight."""
        if self.held is None:
            return
        reference = layer.noise_reference
        if self.held.is_meta and not reference.is_meta:
            self.held = layer.noise_spec().draw(
                self.held.shape[:-1], device=reference.device, dtype=reference.dtype
            )
        else:
            self.held = self.held.to(device=reference.device, dtype=reference.dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copy = type(self)()
        copy.held = None if self.held is None else self.held.detach().clone()
        copy.per_row, copy.static = self.per_row, self.static
        return copy

    def __getstate__(self) -> tuple[bytes | None, bool, bool]:
        held = None if self.held is None else tensor_to_bytes(self.held)
        return held, self.per_row, self.static

    def __setstate__(self, state: tuple[bytes | None, bool, bool]) -> None:
        held, self.per_row, self.static = state
        # The device it came from may not exist here; the layer moves it to its weight's.
        self.held = None if held is None else tensor_from_bytes(held, "cpu")
        self.override = self.kept = None


class NoisyLayer(nn.Module):
    """Be a layer with learned noise: the base of all of them.

    A subclass has its means and, under the same names with `_sigma` after them, its σ as
    parameters; it says with `noise_spec` what it draws, and asks `noise_in_force` at each forward.
    """

    # Of the layers with one weight; a cell names two.
    weight: Tensor
    bias: Tensor | None
    weight_sigma: nn.Parameter
    bias_sigma: nn.Parameter | None

    noise: NoiseKind
    sigma0: float | None
    init: str

    def _become_noisy(self, noise: NoiseKind, sigma0: float | None, init: str) -> None:
        """Add σ (not yet initialised) and the noise's state beside the means."""
        new_state(self)
        self.noise, self.sigma0, self.init = noise, sigma0, init
        for name, mean in list(self._parameters.items()):
            sigma = None if mean is None else nn.Parameter(torch.empty_like(mean))
            self.register_parameter(f"{name}_sigma", sigma)

    def noise_spec(self) -> LayerSpec:
        """Say what one draw of this layer consists of."""
        raise NotImplementedError

    def noisy_weights(self) -> list[tuple[Tensor, Tensor]]:
        """Give the (μ, σ) of each weight, biases left out."""
        return [
            (getattr(self, name.removesuffix("_sigma")), sigma)
            for name, sigma in self.named_parameters(recurse=False)
            if name.startswith("weight") and name.endswith("_sigma")
        ]

    @property
    def noise_reference(self) -> Tensor:
        """Give a weight: the noise has its device and dtype."""
        return self.weight

    @property
    def noise_state(self) -> NoiseState:
        """Give the holder of what is in force; control.py is the way to change it."""
        return self.__dict__["_noise_state"]

    def noise_in_force(self, leading: Sequence[int] | None = None) -> LayerNoise | None:
        """Give the noise that a forward is to use now, or None for the means alone.

        `leading` is the input's shape before its features, for a layer that is fresh per row; None
        asks for noise at the weights, whatever the input.
        """
        state: NoiseState = self.__dict__["_noise_state"]
        flat = state.override
        if flat is None:
            flat = state.held
            if flat is None:
                if state.per_row and leading is not None:
                    return self.fresh_rows(leading)
                return self._fresh(())
            if not state.static:
                return state.noise_of_held(self)
            if torch.is_grad_enabled():
                # Later draws go into the same memory; a backward still needs this one.
                flat = snapshot(flat)
        if isinstance(flat, Off):
            return None
        return self.noise_spec().unflatten(flat)

    def noise_to_keep(self, noise: LayerNoise) -> LayerNoise:
        """Give the noise of a held draw as the layer wants it at every forward."""
        return noise

    def fresh_rows(self, leading: Sequence[int]) -> LayerNoise:
        """Draw for each row of an input of shape (*leading, features)."""
        return self._fresh(leading)

    def _fresh(self, leading: Sequence[int]) -> LayerNoise:
        spec, reference = self.noise_spec(), self.noise_reference
        return spec.unflatten(spec.draw(leading, device=reference.device, dtype=reference.dtype))

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.noise_state.follow(self)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        # `load_state_dict(…, assign=True)` may bring weights of another device or dtype.
        super()._load_from_state_dict(*args, **kwargs)
        self.noise_state.follow(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.noise_state.follow(self)

    def describe_noise(self) -> str:
        """Say in a few words which state the noise is in, for `repr`."""
        state = self.noise_state
        if isinstance(state.override, Off):
            return "off"
        if state.override is not None:
            return "using a draw"
        if state.held is None:
            return "fresh per row" if state.per_row else "fresh"
        return "held" if state.held.ndim == 1 else f"held for {state.held.shape[0]} rows"


def new_state(layer: nn.Module) -> None:
    """Give a layer that is being built its holder, outside of PyTorch's own registers."""
    layer.__dict__["_noise_state"] = NoiseState()


def keeps_more(layer: nn.Module) -> bool:
    """Tell whether a layer has more than means and σ.

    weight_norm, spectral_norm, parametrisations and pruning keep other parameters and make the
    weight out of them.
    """
    kept = {*layer.state_dict(), *dict(layer.named_buffers()), *dict(layer.named_children())}
    return bool({name.removesuffix("_sigma") for name in kept} - MEANS)


def is_uninitialised(layer: nn.Module) -> bool:
    """Tell whether a lazy layer has no shape yet."""
    return any(map(is_lazy, layer.parameters(recurse=False)))


def take_over(layer: nn.Module, former: nn.Module, kind: type[nn.Module]) -> None:
    """Begin a bare layer's life with the settings and means of a former one, the same objects.

    The former layer may be a plain or a noisy one; its noise is left behind. Raises TypeError
    where it is not of that kind, and ValueError where it has no shape yet, or keeps more than
    weights and biases.
    """
    name = type(former).__name__
    if not isinstance(former, kind):
        raise TypeError(f"got a {name}, expected an nn.{kind.__name__}")
    if is_uninitialised(former):
        raise ValueError(f"got a {name} that has no shape yet: run one forward first")
    if keeps_more(former):
        raise ValueError(f"got a {name} that keeps more than weights and biases")
    nn.Module.__init__(layer)
    left_out = {*vars(nn.Module()), "_noise_state", "noise", "sigma0", "init"}
    for name, value in vars(former).items():
        if name not in left_out:
            setattr(layer, name, value)
    # Also the ones that are None, which `named_parameters` leaves out.
    for name, parameter in former.__dict__["_parameters"].items():
        if not name.endswith("_sigma"):
            layer.register_parameter(name, parameter)
    layer.train(former.training)
