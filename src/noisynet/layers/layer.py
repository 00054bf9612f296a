"""The base class of noisy layers, and how a noisy layer takes over a plain one."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from numbers import Integral
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from .initial import InitName, check_init, check_sigma0, initialise_means, initialise_sigmas
from .kernels.tracing import in_jit_trace, snapshot, warn_of_frozen_draw
from .noise import LayerNoise, LayerSpec, NoiseKind, NoiseName, noise_kind
from .noise_state import NoiseState, Off
from .parametrised import carry_over, mean_without_side_effects, parametrised_names
from .weights import Weights

MEAN = re.compile(r"(weight|bias)(_(ih|hh|hr)(_l\d+(_reverse)?)?)?")
"""The names of the means in all layers that can be noisy, except attention."""

OF_ATTENTION = {
    *(f"{part}_proj_weight" for part in ("in", "q", "k", "v")),
    *("in_proj_bias", "bias_k", "bias_v", "out_proj", "out_proj.weight", "out_proj.bias"),
}
"""The names in an attention layer: its means, two tokens, and its output projection."""


class NoisyLayer(nn.Module):
    """The base class of all layers with learned noise.

    A subclass also inherits from the torch layer that it names as `plain`. That layer's parameters
    are the means μ; the σ of each has the same name with `_sigma` after it. A subclass describes
    its draws with `noise_spec`, and calls `noise_in_force` at each forward.
    """

    plain: ClassVar[type[nn.Module]]
    without_sigma: ClassVar[frozenset[str]] = frozenset()
    """Parameters of the plain layer that are not means, and so have no σ."""

    # For layers with one weight; recurrent cells declare two.
    weight: Tensor
    bias: Tensor | None
    weight_sigma: nn.Parameter
    bias_sigma: nn.Parameter | None

    noise: NoiseKind
    sigma0: float | None
    init: InitName
    learned: bool = True
    """Whether σ is learned; if not, it does not require grad, and a scale can adapt instead."""

    def __init__(
        self,
        *arguments: Any,
        noise: NoiseName,
        sigma0: float | None,
        init: InitName,
        learned: bool = True,
        **options: Any,
    ) -> None:
        """Build the plain layer from its own arguments, and add σ with its initial values."""
        kind = check_noise_options(noise, sigma0, init, learned)
        # Torch's constructors call reset_parameters, which does nothing until σ exists.
        super().__init__(*arguments, **options)
        self._become_noisy(kind, sigma0, init, learned)
        self.reset_parameters()

    @classmethod
    def from_plain(
        cls,
        layer: nn.Module,
        *,
        noise: NoiseName = "factorised",
        sigma0: float | None = None,
        init: InitName = "paper",
        learned: bool = True,
    ) -> Self:
        """Build a noisy layer that shares the Parameters of a plain one as its means; σ is new.

        σ requires grad if it is `learned`, even where the means are frozen. A layer under
        parametrisations keeps them, and the noise is added to what they compute. Raises TypeError
        for a layer that is not of the kind `plain`, and ValueError for an unknown option or a layer
        that cannot become noisy, such as one with a forward of its own, which would be lost.
        """
        kind = check_noise_options(noise, sigma0, init, learned)
        noisy = cls.__new__(cls)
        take_over(noisy, layer, cls.plain)
        if type(layer).forward is not cls.plain.forward or "forward" in vars(layer):
            name, expected = type(layer).__name__, cls.plain.__name__
            raise ValueError(f"got a {name} whose forward is not that of nn.{expected}")
        noisy._become_noisy(kind, sigma0, init, learned)
        noisy.reset_sigmas()
        return noisy

    def _become_noisy(
        self, noise: NoiseKind, sigma0: float | None, init: InitName, learned: bool
    ) -> None:
        """Add σ (not yet initialised) and the state of the noise beside the means."""
        # Kept outside of PyTorch's own registers.
        self.__dict__["_noise_state"] = NoiseState()
        self.noise, self.sigma0, self.init, self.learned = noise, sigma0, init, learned
        for name in [*parametrised_names(self), *self._parameters]:
            if name in self.without_sigma:
                continue
            mean = mean_without_side_effects(self, name)
            if mean is not None and not mean.is_floating_point():
                raise ValueError(f"dtype: got {mean.dtype}, expected a floating-point dtype")
            sigma = None if mean is None else nn.Parameter(torch.empty_like(mean), learned)
            self.register_parameter(f"{name}_sigma", sigma)

    def noise_spec(self) -> LayerSpec:
        """Return the spec of this layer's noise: its kind and sizes."""
        raise NotImplementedError

    def weights(self) -> tuple[Weights, ...]:
        """Return μ and σ of each weight and its bias."""
        return (Weights(self.weight, self.bias, self.weight_sigma, self.bias_sigma),)

    def weight_names(self) -> tuple[tuple[str, str], ...]:
        """Return the names of each weight and its bias, which the layer may lack."""
        return (("weight", "bias"),)

    def means(self) -> list[tuple[Tensor, Tensor | None]]:
        """Return μ of each weight and its bias, for measurements rather than for learning.

        A parametrised μ is computed on a copy, without a step of its power iteration, and passes no
        gradient on.
        """
        found = [
            tuple(mean_without_side_effects(self, name) for name in pair)
            for pair in self.weight_names()
        ]
        return found  # pyright: ignore[reportReturnType] - a weight is there

    def sigmas(self) -> list[tuple[Tensor, Tensor | None]]:
        """Return σ of each weight and its bias."""
        return [
            (getattr(self, f"{weight}_sigma"), getattr(self, f"{bias}_sigma", None))
            for weight, bias in self.weight_names()
        ]

    def noisy_weights(self) -> list[tuple[Tensor, Tensor]]:
        """Return the (μ, σ) of each weight, without biases; for measurements, like `means`."""
        both = zip(self.means(), self.sigmas(), strict=True)
        return [(mean, sigma) for (mean, _), (sigma, _) in both]

    def reset_parameters(self) -> None:
        """Set μ and σ to new initial values; p is each weight's own number of inputs."""
        if "_noise_state" not in self.__dict__:
            return
        means = self.means()
        for pair, spec in zip(means, self.noise_spec().parts, strict=True):
            initialise_means(*pair, spec, init=self.init)
        if made := [name for name in parametrised_names(self) if not name.endswith("_sigma")]:
            for names, pair in zip(self.weight_names(), means, strict=True):
                for name, mean in zip(names, pair, strict=True):
                    if name in made:
                        # A parametrisation that cannot be inverted raises an error of its own.
                        setattr(self, name, mean)
        self.reset_sigmas()

    def reset_sigmas(self) -> None:
        """Set σ back to its initial value; the means stay."""
        # So that a σ that a parametrisation computes is one tensor, to initialise and then to set.
        with parametrize.cached():
            for pair, spec in zip(self.sigmas(), self.noise_spec().parts, strict=True):
                initialise_sigmas(*pair, spec, init=self.init, sigma0=self.sigma0)
            for name in parametrised_names(self):
                if name.endswith("_sigma"):
                    setattr(self, name, getattr(self, name))

    @property
    def noise_reference(self) -> Tensor:
        """Return a weight's σ, whose device and dtype the noise takes.

        It is σ because reading a parametrised μ would take a step of its power iteration.
        """
        return self.weight_sigma

    @property
    def noise_state(self) -> NoiseState:
        """Return the state of this layer's noise, which the functions of states.py change."""
        return self.__dict__["_noise_state"]

    def noise_in_force(self, input: Tensor | None = None, features: int = 1) -> Any:
        """Return the noise for a forward to use now, or None for the means alone.

        A layer that is fresh per row makes a draw for each row of `input`, which is its last
        `features` dimensions; with the batch first, for each index of the first dimension. Without
        an input, it makes one draw for all rows. The noise includes the scale, so every form of the
        layer applies it, and σ's gradient is that of scale · ε.
        """
        state: NoiseState = self.__dict__["_noise_state"]
        flat = state.override
        if flat is None:
            flat = state.held
            if flat is None:
                if state.per_row and input is not None:
                    leading = input.shape[: input.ndim - features]
                    if not state.batch_first or len(leading) < 2:
                        return state.scaled(self.fresh_rows(leading))
                    # All other dimensions share the weights, so nothing is drawn at the outputs.
                    return state.scaled(self._fresh(leading[:1], batch_first=True))
                return state.scaled(self._fresh(()))
            if not state.static and flat.dtype == self.noise_reference.dtype:
                return state.noise_of_held(self)
            if torch.is_grad_enabled() or in_jit_trace():
                # Later draws go into the same memory; a backward or a trace still needs this one.
                flat = snapshot(flat)
        if isinstance(flat, Off):
            return None
        if torch.compiler.is_compiling():
            warn_of_frozen_draw()
        # FSDP's mixed precision and `functional_call` bring weights of another dtype to a forward.
        flat = flat.to(self.noise_reference.dtype)
        first = state.batch_first if state.override is None else state.override_batch_first
        return state.scaled(self.noise_spec().unflatten(flat, first))

    @property
    def is_off(self) -> bool:
        """Return whether the means alone are in force."""
        return isinstance(self.noise_state.override, Off)

    def noise_to_keep(self, noise: LayerNoise) -> LayerNoise:
        """Return the noise of a held draw in the form to cache for all forwards."""
        return noise

    def fresh_rows(self, leading: Sequence[int]) -> LayerNoise:
        """Draw noise for each row of an input of shape (*leading, features)."""
        return self._fresh(leading)

    def _fresh(self, leading: Sequence[int], batch_first: bool = False) -> LayerNoise:
        spec, reference = self.noise_spec(), self.noise_reference
        flat = spec.draw(leading, device=reference.device, dtype=reference.dtype)
        return spec.unflatten(flat, batch_first)

    def _slow_forward(self, *input: Any, **options: Any) -> Any:
        # nn.Module calls this in place of `forward` under `torch.jit.trace`, which the older export
        # to ONNX uses.
        state = self.noise_state
        if isinstance(state.held if state.override is None else state.override, Tensor):
            warn_of_frozen_draw()
        return super()._slow_forward(*input, **options)

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

    def extra_repr(self) -> str:
        """Return sizes, kind of noise and its state."""
        sizes, noise = super().extra_repr(), f"noise={self.noise!r} ({self._state_in_words()})"
        return f"{sizes}, {noise}" if sizes else noise

    def _state_in_words(self) -> str:
        state = self.noise_state
        if isinstance(state.override, Off):
            return "off"
        scale = "" if state.scale == 1 else f", scale {state.scale:.3g}"
        if state.override is not None:
            return f"using a draw{scale}"
        first = ", batch first" if state.batch_first else ""
        if state.held is None:
            return (f"fresh per row{first}" if state.per_row else "fresh") + scale
        rows = "" if state.held.ndim == 1 else f" for {state.held.shape[0]} rows{first}"
        return f"held{rows}{scale}"


def keeps_more(layer: nn.Module) -> bool:
    """Return whether a layer has more than means, their parametrisations, and σ.

    Pruning, and the `weight_norm` and `spectral_norm` from before parametrisations, keep other
    parameters and compute the weight from them.
    """
    if isinstance(layer, nn.MultiheadAttention):
        kept = {*layer.state_dict(), *dict(layer.named_buffers()), *dict(layer.named_children())}
        return bool({name.removesuffix("_sigma") for name in kept} - OF_ATTENTION)
    parametrised = parametrised_names(layer)
    if not all(map(MEAN.fullmatch, parametrised)):
        return True
    below = tuple(f"parametrizations.{name}." for name in parametrised)
    kept = {*layer.state_dict(), *dict(layer.named_buffers())}
    names = {name for name in kept if not name.startswith(below)}
    names.update(name for name, _ in layer.named_children() if name != "parametrizations")
    return not all(MEAN.fullmatch(name.removesuffix("_sigma")) for name in names)


def is_uninitialised(layer: nn.Module) -> bool:
    """Return whether a lazy layer has no shape yet."""
    return any(map(is_lazy, layer.parameters(recurse=False)))


def take_over(layer: nn.Module, former: nn.Module, kind: type[nn.Module]) -> None:
    """Give a bare layer the settings, means and parametrisations of a former layer.

    The means remain the same Parameters. The former layer may be plain or noisy; its noise is left
    behind. Raises TypeError unless it is of the class `kind`, and ValueError if it has no shape
    yet, or keeps more than weights and biases.
    """
    name = type(former).__name__
    if not isinstance(former, kind):
        raise TypeError(f"got a {name}, expected an nn.{kind.__name__}")
    if is_uninitialised(former):
        raise ValueError(f"got a {name} that has no shape yet: run one forward first")
    if keeps_more(former):
        raise ValueError(f"got a {name} that keeps more than weights and biases")
    nn.Module.__init__(layer)
    left_out = {*vars(nn.Module()), "_noise_state", "noise", "sigma0", "init", "learned"}
    for name, value in vars(former).items():
        if name not in left_out:
            # A former layer that is the root lives on, and must not share its lists.
            setattr(layer, name, copy.copy(value) if isinstance(value, list) else value)
    # Including those that are None, which `named_parameters` leaves out.
    for name, parameter in former.__dict__["_parameters"].items():
        if not name.endswith("_sigma"):
            layer.register_parameter(name, parameter)
    for name, child in former.named_children():
        if name != "parametrizations":
            layer.register_module(name, child)
    layer.train(former.training)
    carry_over(former, layer)


def check_noise_options(
    noise: str, sigma0: float | None, init: str, learned: bool = True
) -> NoiseKind:
    """Return the kind of noise; raise ValueError for an invalid option."""
    if not isinstance(learned, bool):
        raise ValueError(f"learned: got {learned!r}, expected True or False")
    kind = noise_kind(noise)
    check_sigma0(sigma0)
    check_init(init, kind)
    return kind


def check_bias(bias: bool) -> None:
    """Raise ValueError unless `bias` is a bool: other libraries' layers take σ0 in its place."""
    if not isinstance(bias, bool):
        raise ValueError(f"bias: got {bias!r}, expected True or False; name noise= and sigma0=")


def check_sizes(**sizes: int) -> None:
    """Raise ValueError unless all sizes are integers of at least 1."""
    for name, value in sizes.items():
        if not isinstance(value, int | Integral):
            raise ValueError(f"{name}: got {value!r}, expected an integer")
        if value < 1:
            raise ValueError(f"{name}: got {value}, expected at least 1")
