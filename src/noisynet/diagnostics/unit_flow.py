"""Tracing a forward, from the units of each layer to the layers that read them.

A layer's units are its outputs, or a convolution's filters. They are traced through the tensors
themselves, so a network may be of any class, with activations as modules or as functions. An
operation that is not known to keep the units apart and in place (a sum, a concatenation, attention)
ends the trace: the units are still measured, and the layer's `unknown` names the operation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from ..layers import NoisyLayer
from ..layers.kernels.tracing import uncompiled
from ..layers.layer import keeps_more
from ..layers.parametrised import parametrised_names
from .hidden_layer import HiddenLayer, Reader

_ACTIVATIONS = {
    "relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish",
    "tanh", "sigmoid", "softplus", "softsign", "hardtanh", "hardswish", "hardsigmoid", "threshold",
    "logsigmoid", "clamp_min",
}  # fmt: skip
_IN_PLACE = {
    "to", "float", "half", "bfloat16", "double", "type", "type_as", "cpu", "cuda", "contiguous",
    "clone", "detach", "dropout", "alpha_dropout",
}  # fmt: skip
"""Functions that may change values but move none."""
_SCALES = {"mul", "multiply", "div", "divide", "true_divide"}
"""Functions that keep a unit at 0 if it is 0, whatever the other factor or the divisor is."""
_POOLS = tuple(f"{kind}_pool" for kind in ("max", "avg", "adaptive_max", "adaptive_avg", "lp"))
_RESHAPES = {"flatten", "reshape", "view", "unsqueeze", "expand", "unflatten", "stack"}
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_NORMS = (nn.LayerNorm, nn.GroupNorm, *_BATCH_NORMS)
_OTHERS = (
    nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase, nn.ConvTranspose1d, nn.ConvTranspose2d,
    nn.ConvTranspose3d, NoisyLayer,
)  # fmt: skip
"""Layers that are not traced through, unless they are linear or a convolution."""


@dataclass(frozen=True)
class _Place:
    """The dimension, counted from the end, along which a tensor has a layer's units."""

    layer: str
    units: int
    dim: int
    block: int = 1
    """Number of adjacent values of one unit, above 1 for a filter after flattening."""
    active: bool = False
    """Whether the tensor comes after an activation."""


def hidden_layers(
    model: nn.Module,
    run: Callable[[], Any],
    *,
    keep_features: bool = False,
    into: dict[str, HiddenLayer] | None = None,
) -> dict[str, HiddenLayer]:
    """Run a forward of a model, and return its hidden layers by name, in the order of their use.

    With `into`, the result of an earlier forward, measurements are added to those of its layers.
    """
    following = _Following(model, {} if into is None else into, keep_features=keep_features)
    with torch.no_grad(), uncompiled():
        following.run(run)
    return following.layers


def _units_of(module: nn.Module) -> tuple[int, int] | None:
    """Return a layer's number of units and their dimension from the end; None for other modules."""
    if isinstance(module, nn.Linear):
        return module.out_features, -1
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return module.out_channels, -1 - len(module.kernel_size)
    return None


def keeps_plain_weights(module: nn.Module) -> bool:
    """Return whether a layer's weights are its own parameters, not computed from other tensors."""
    return not keeps_more(module) and not parametrised_names(module)


class _Following(TorchFunctionMode):
    """Mode that records which layers' units each tensor has, and where."""

    def __init__(
        self, model: nn.Module, layers: dict[str, HiddenLayer], *, keep_features: bool
    ) -> None:
        super().__init__()
        self.layers = layers
        self._model = model
        self._keep_features = keep_features
        self._names = {module: name for name, module in model.named_modules()}
        # Tensors are kept alive with their places, since an id is reused after its tensor is freed.
        self._places: dict[int, tuple[Tensor, frozenset[_Place]]] = {}
        self._norms: dict[str, list[nn.Module]] = {}
        self._read: dict[nn.Module, set[frozenset[tuple[str, int]]]] = {}
        """The (layer, block) of the units that each call of a module read, by module."""
        self._lost: dict[str, str] = {}
        """What ended the trace of a layer's units, before or after their activation, by layer."""
        self._inside = 0

    def run(self, run: Callable[[], Any]) -> None:
        """Run a function and trace its forward."""
        handles: list[RemovableHandle] = []
        try:
            for module in self._names:
                if _units_of(module) is not None or isinstance(module, (*_NORMS, *_OTHERS)):
                    handles += [
                        module.register_forward_pre_hook(self._enter, with_kwargs=True),
                        module.register_forward_hook(self._leave, with_kwargs=True),
                    ]
            if any(isinstance(module, torch.jit.ScriptModule) for module in self._names):
                # A ScriptModule does not accept hooks of its own. With keyword arguments, PyTorch
                # would keep part of the hook after its removal.
                handles.append(register_module_forward_hook(self._scripted))
            with self:
                result = run()
        finally:
            for handle in handles:
                handle.remove()
        for tensor in tensors_in(result):
            self._lose(self._of(tensor), "the network returns it")
        for layer in self.layers.values():
            for module in (*layer.norms, *(reader.module for reader in layer.readers.values())):
                if len(self._read.get(module, ())) > 1:
                    by = f"{self._names[module]!r}, which reads something else too"
                    self._lost.setdefault(layer.name, by)
        for name, by in self._lost.items():
            if name in self.layers and self.layers[name].unknown is None:
                self.layers[name].unknown = by
        # An activation on the outputs does not make them a hidden layer.
        for name, layer in list(self.layers.items()):
            if not layer.readers and layer.unknown == "the network returns it":
                del self.layers[name]

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self._inside:
            name = getattr(func, "__name__", "")
            # relu_ counts as relu.
            name = name if name.endswith("__") else name.removesuffix("_")
            self._follow(name, (args, kwargs), result)
        return result

    # Functions

    def _follow(self, name: str, given: Any, result: Any) -> None:
        read = [(one, place) for one in tensors_in(given) for place in self._of(one)]
        if not read:
            return
        if not isinstance(result, Tensor):
            # Sizes and types contain no units.
            if next(tensors_in(result), None) is not None or name == "__setitem__":
                self._lose((place for _, place in read), name)
            return
        moved = [(place, self._moved(name, given, place, one, result)) for one, place in read]
        self._lose((place for place, now in moved if now is None), name)
        self._put(result, frozenset(now for _, now in moved if now is not None))

    def _moved(
        self, name: str, given: Any, place: _Place, before: Tensor, after: Tensor
    ) -> _Place | None:
        """Return where a function's result has the units; None if that is not known."""
        if name in _RESHAPES and _is_stacked_first(name, given):
            return _reshaped(place, before.shape, after.shape)
        if name.startswith(_POOLS):
            return place if place.dim < -1 and len(after.shape) == len(before.shape) else None
        if before.shape[place.dim :] != after.shape[place.dim :]:
            return None
        if name in _ACTIVATIONS:
            if not place.active:
                self._measure(place, after)
            return replace(place, active=True)
        if name == "layer_norm":
            return place if _has_no_gain(given) and not place.active else None
        if name in _SCALES:
            alone = len(list(tensors_in(given))) == 1
            is_factor = "mul" in name or next(tensors_in(given)) is before
            # Before the activation, a product with another tensor no longer is the layer's unit.
            return place if is_factor and (place.active or alone) else None
        return place if name in _IN_PLACE else None

    def _normalised(self, places: frozenset[_Place]) -> frozenset[_Place]:
        """Lose the places after an activation, where a norm mixes the units; return the others."""
        self._lose((place for place in places if place.active), "a norm behind its activation")
        return frozenset(place for place in places if not place.active)

    # Layers

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if module not in self._names:
            return  # a former layer that another network kept: it shares the hooks of the new one
        self._inside += 1
        given = list(tensors_in((args, kwargs)))
        places = self._of(given[0]) if given else frozenset[_Place]()
        read = frozenset((place.layer, place.block) for place in places)
        self._read.setdefault(module, set()).add(read)
        if self._inside > 1 or isinstance(module, _NORMS):
            return
        if _units_of(module) is None:
            self._read_by_another_kind(module, given)
            return
        for place in places:
            if place.active:
                self._reads(module, place)
            else:
                self._lose([place], f"{self._names[module]!r}, without its activation")

    def _scripted(self, module: nn.Module, args: Any, _output: Any) -> None:
        if isinstance(module, torch.jit.ScriptModule) and module in self._names:
            self._read_by_another_kind(module, tensors_in(args))

    def _read_by_another_kind(self, module: nn.Module, given: Iterable[Tensor]) -> None:
        by = f"{self._names[module]!r}, a {type(module).__name__}"
        self._lose((place for one in given for place in self._of(one)), by)

    def _reads(self, module: nn.Module, place: _Place) -> None:
        name, layer = self._names[module], self.layers[place.layer]
        size = place.units * place.block
        if isinstance(module, nn.Linear):
            fits = place.dim == -1 and module.in_features == size
        else:
            of_images = isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
            assert of_images, "hooks stand at these alone"
            fits = place.dim == -1 - len(module.kernel_size) and module.in_channels == size
            fits = fits and module.groups == 1
        if not fits:
            self._lose([place], f"{name!r}, whose inputs are not its units")
        elif module is layer.module:
            self._lose([place], "the layer itself")
        elif not keeps_plain_weights(module):
            self._lose([place], f"{name!r}, which keeps more than weights and biases")
        else:
            layer.readers[name] = Reader(module, place.block)

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if module not in self._names:
            return
        self._inside -= 1
        if self._inside or not isinstance(output, Tensor):
            return
        if isinstance(module, _NORMS):
            input = next(tensors_in((args, kwargs)), None)
            places = frozenset() if input is None else self._normalised(self._of(input))
            for place in places:
                norms = self._norms.setdefault(place.layer, [])
                norms += [] if module in norms else [module]
            self._put(output, places)
            return
        found = _units_of(module)
        if found is None:
            return
        units, dim = found
        self._norms[self._names[module]] = []
        self._put(output, frozenset([_Place(self._names[module], units, dim)]))

    # What is kept

    def _of(self, tensor: Tensor) -> frozenset[_Place]:
        return self._places.get(id(tensor), (tensor, frozenset[_Place]()))[1]

    def _put(self, tensor: Tensor, places: frozenset[_Place]) -> None:
        self._places[id(tensor)] = (tensor, places)

    def _lose(self, places: Iterable[_Place], by: str) -> None:
        for place in places:
            self._lost.setdefault(place.layer, by)

    def _measure(self, place: _Place, result: Tensor) -> None:
        module = self._model.get_submodule(place.layer)
        layer = self.layers.setdefault(place.layer, HiddenLayer(place.layer, module, place.units))
        layer.norms = list(self._norms[place.layer])
        if not keeps_plain_weights(module):
            layer.unknown = "itself, which keeps more than weights and biases"
        elif any(isinstance(norm, _BATCH_NORMS) for norm in layer.norms):
            layer.unknown = "a BatchNorm, whose running statistics are of the former units"
        if not result.numel():
            raise ValueError("batch: got no observation, expected at least one")
        values = result.detach().float()
        rows = values.reshape(math.prod(values.shape[: place.dim]), -1)
        by_unit = rows.reshape(len(rows), place.units, -1)
        layer.activity = layer.activity + by_unit.abs().sum((0, 2))
        layer.values += len(rows) * by_unit.shape[2]
        layer.lengths = layer.lengths + torch.linalg.vector_norm(rows, dim=1).sum()
        layer.rows += len(rows)
        if self._keep_features:
            layer.features.append(rows)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in arguments or results, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from tensors_in(one)
    elif isinstance(value, tuple | list):
        for one in value:
            yield from tensors_in(one)


def _reshaped(place: _Place, before: torch.Size, after: torch.Size) -> _Place | None:
    """Return where the units are after a reshape; None if that is not known."""
    behind = before[place.dim :]
    if after[place.dim :] == behind and len(after) >= -place.dim:
        return place
    if len(after) and after[-1] == math.prod(behind):
        return replace(place, dim=-1, block=place.block * math.prod(behind[1:]))
    return None


def _has_no_gain(given: Any) -> bool:
    args, kwargs = given
    parameters = [*args[2:4], (kwargs or {}).get("weight"), (kwargs or {}).get("bias")]
    return not any(isinstance(one, Tensor) for one in parameters)


def _is_stacked_first(name: str, given: Any) -> bool:
    """Return whether a function is not a stack, or stacks along a new first dimension."""
    if name != "stack":
        return True
    args, kwargs = given
    return (args[1] if len(args) > 1 else (kwargs or {}).get("dim", 0)) == 0
