"""Noisy layers of any library, recognised by their structure: σ of the same shape as μ."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..layers import NoisyLayer
from ..layers.peers import LAYOUTS
from ..layers.restoring import buffers_preserved

_SIGMA = {"sigma", "sigmas", "sig", "std"}
_MEAN = {"mu", "mus", "mean"}
_REDRAW = ("reset_noise", "sample_noise", "resample_noise", "redraw_noise", "resample", "sample")
_LIBRARIES = ("torchrl", "tianshou", "pfrl", "agilerl", "ding", "ray", "stable_baselines3")


@dataclass(frozen=True)
class RecognisedLayer:
    """A noisy layer of any library: its name in the model, its module, and its names for μ and σ.

    `means` and `sigmas` are names of parameters below the module, weights before biases, each μ
    with its σ. `redraw` is the name of the method that redraws, None if there is none.
    """

    name: str
    module: nn.Module
    library: str
    """"noisynet", another known package that it comes from, or ""."""
    means: tuple[str, ...]
    sigmas: tuple[str, ...]
    redraw: str | None

    @property
    def is_ours(self) -> bool:
        """Whether it is one of noisynet's layers."""
        return isinstance(self.module, NoisyLayer)

    @property
    def scale(self) -> float:
        """The factor of σ ⊙ ε: 1, unless noisynet's control has set another scale."""
        return self.module.noise_state.scale if isinstance(self.module, NoisyLayer) else 1.0

    @property
    def is_controlled(self) -> bool:
        """Whether a schedule or a target of noisynet's sets the scale."""
        return isinstance(self.module, NoisyLayer) and self.module.noise_state.control is not None

    @property
    def learns_sigma(self) -> bool:
        """Whether σ is meant to be learned; false for a layer with `learned=False`."""
        return not isinstance(self.module, NoisyLayer) or self.module.learned

    def tensors(self, names: tuple[str, ...], module: nn.Module | None = None) -> list[Tensor]:
        """Return parameters by name, of this layer or of a copy of it."""
        layer = self.module if module is None else module
        # Not `get_parameter`: a framework may have put plain tensors in the parameters' places.
        return [attrgetter(one)(layer) for one in names]

    def weights(self) -> list[tuple[Tensor, Tensor]]:
        """Return the (μ, σ) of each weight, biases left out."""
        return [pair for pair in self._pairs() if pair[0].ndim > 1]

    def biases(self) -> list[tuple[Tensor, Tensor]]:
        """Return the (μ, σ) of each bias."""
        return [pair for pair in self._pairs() if pair[0].ndim == 1]

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self.tensors(self.means), self.tensors(self.sigmas), strict=True))

    @property
    def inputs(self) -> int:
        """The number p of inputs of each output; for a convolution, channels · kernel positions."""
        if isinstance(self.module, NoisyLayer):
            return self.module.noise_spec().parts[0].inputs
        shape = self.weights()[0][0].shape
        if len(shape) == 2 and shape[0] == getattr(self.module, "in_features", None) != shape[1]:
            return shape[0]
        return math.prod(shape[1:])

    @property
    def outputs(self) -> int:
        """The number q of outputs."""
        if isinstance(self.module, NoisyLayer):
            return self.module.noise_spec().parts[0].outputs
        shape = self.weights()[0][0].shape
        return shape[1] if len(shape) == 2 and self.inputs == shape[0] != shape[1] else shape[0]


def find_noisy_layers(model: nn.Module) -> dict[str, RecognisedLayer]:
    """List the noisy layers of a model, of noisynet or of another library, {name: layer}.

    Lazy layers without a shape are left out: see `noisy_layers_without_shape`. Raises TypeError for
    anything but a module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}, expected an nn.Module")
    found = {name: recognise(module, name) for name, module in model.named_modules()}
    return {name: layer for name, layer in found.items() if layer is not None}


def noisy_layers_without_shape(model: nn.Module) -> list[str]:
    """List the names of a model's lazy noisy layers, of any library, that have no shape yet."""
    return [
        name
        for name, module in model.named_modules()
        if any(
            is_lazy(parameter) and tokens(own) & _SIGMA
            for own, parameter in module.named_parameters(recurse=False)
        )
    ]


def recognise(module: nn.Module, name: str = "") -> RecognisedLayer | None:
    """Return a module as a noisy layer, with its names for μ and σ; None if it is not one."""
    if any(map(is_lazy, module.parameters(recurse=False))):
        return None
    if isinstance(module, NoisyLayer):
        names = [one for one, _ in module.named_parameters(recurse=False)]
        pairs = {one: one.removesuffix("_sigma") for one in names if one.endswith("_sigma")}
        return _found(name, module, pairs)
    # μ and σ are the layer's own parameters, or those of two plain layers inside it that are called
    # mu and sigma. These must be all of its parameters: a Gaussian policy has such a pair, too, but
    # after a body.
    own = dict(module.named_parameters(recurse=False))
    nested = {
        f"{child_name}.{one}": parameter
        for child_name, child in module.named_children()
        if tokens(child_name) & (_SIGMA | _MEAN) == tokens(child_name)
        for one, parameter in child.named_parameters(recurse=False)
        if not is_lazy(parameter)
    }
    if len(nested) < len(list(module.parameters())):
        nested = {}
    for parameters in (own, nested):
        pairs = _by_layout(parameters) or _by_tokens(parameters)
        if any(parameters[sigma].ndim > 1 for sigma in pairs):
            found = _found(name, module, pairs)
            return None if _is_gaussian_head(found) else found
    return None


@torch.no_grad()
def _is_gaussian_head(found: RecognisedLayer) -> bool:
    """Return whether a module of layers mu and sigma returns both, as a policy's head does."""
    if "." not in found.sigmas[0] or found.weights()[0][0].ndim != 2:
        return False
    try:
        # A copy, since a forward may store its noise.
        head = copy.deepcopy(found.module)
        with buffers_preserved(head):
            output = head(found.weights()[0][0].new_zeros(1, found.inputs))
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError):
        # It needs more than its input, or has no forward: its parameters are all that is known.
        return False
    return not isinstance(output, Tensor) or output.shape[-1:] != (found.outputs,)


def _found(name: str, module: nn.Module, pairs: Mapping[str, str]) -> RecognisedLayer:
    """Build a `RecognisedLayer` from {σ: μ}, weights first."""
    ordered = sorted(pairs, key=lambda sigma: -attrgetter(sigma)(module).ndim)
    package = type(module).__module__.partition(".")[0]
    redraw = [method for method in _REDRAW if callable(getattr(type(module), method, None))]
    return RecognisedLayer(
        name=name,
        module=module,
        library=package if package in (*_LIBRARIES, "noisynet") else "",
        means=tuple(pairs[sigma] for sigma in ordered),
        sigmas=tuple(ordered),
        redraw=redraw[0] if redraw else None,
    )


def _by_layout(parameters: Mapping[str, Tensor]) -> dict[str, str]:
    """Return {σ: μ} by the names that a known library gives them."""
    for layout in LAYOUTS:
        pairs = dict(zip(layout.sigmas, layout.means, strict=True))
        fitting = {s: m for s, m in pairs.items() if _pair(parameters, s, m)}
        if layout.sigmas[0] in fitting:
            return fitting
    return {}


def _by_tokens(parameters: Mapping[str, Tensor]) -> dict[str, str]:
    """Return {σ: μ} for names that are equal except for a word for σ, and maybe one for μ."""
    means = {frozenset(tokens(one) - _MEAN): one for one in parameters if not tokens(one) & _SIGMA}
    pairs: dict[str, str] = {}
    for sigma in parameters:
        words = tokens(sigma)
        mean = means.get(frozenset(words - _SIGMA))
        if words & _SIGMA and mean is not None and _pair(parameters, sigma, mean):
            pairs[sigma] = mean
    return pairs


def _pair(parameters: Mapping[str, Tensor], sigma: str, mean: str) -> bool:
    if sigma not in parameters or mean not in parameters:
        return False
    return parameters[sigma].shape == parameters[mean].shape


def tokens(name: str) -> set[str]:
    """Return the words of a name, in lower case."""
    return {token.lower() for token in re.split(r"[._]", name) if token}
