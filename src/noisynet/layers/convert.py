"""Turn plain layers into noisy ones and back, keeping what they learned."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import cast

from torch import nn

from .control import noisy_layers
from .linear import NoisyLinear, check_noise_options

Where = Callable[[str, nn.Module], bool]


def noisify(
    module: nn.Module,
    where: Where | None = None,
    noise: str = "factorised",
    sigma0: float | None = None,
    init: str = "paper",
) -> nn.Module:
    """Make linear layers noisy in place, keeping their trained means.

    μ stay the very Parameter objects; σ are new, get the initial value that `init` names, and
    always require grad (`sigma_parameters` lists them for an optimizer that exists already). Every
    plain `nn.Linear` is converted; `where(name, layer)` chooses among them. A layer that stands in
    several places stays one layer. Layers that other code reads without calling them are left
    alone, with one warning that names them. Returns the module; a root Linear comes back as a new
    one that shares its Parameters. Raises ValueError where there is nothing to convert.
    """
    check_noise_options(noise, sigma0, init)
    candidates, refused = _convertible(module)
    if refused:
        warnings.warn(
            "noisify leaves alone: "
            + "; ".join(f"{name} ({reason})" for name, reason in refused.items()),
            stacklevel=2,
        )
    chosen = [name for name in candidates if where is None or where(name, candidates[name])]
    if not chosen:
        raise ValueError(
            f"{type(module).__name__}: nothing to convert: "
            + (
                f"where chose none of {', '.join(map(repr, candidates))}"
                if candidates
                else "it has no nn.Linear that can be"
            )
        )
    replacements: dict[int, nn.Module] = {}
    for name in chosen:
        layer = candidates[name]
        noisy = NoisyLinear.from_linear(layer, noise=noise, sigma0=sigma0, init=init)
        _share_hooks(layer, noisy)
        replacements[id(layer)] = noisy
    return _replaced(module, replacements)


def denoise(module: nn.Module) -> nn.Module:
    """Make plain torch layers with the means out of the noisy ones, in place.

    The means stay the very Parameter objects. Returns the module; a noisy root comes back as a new
    `nn.Linear` that shares its Parameters.
    """
    replacements: dict[int, nn.Module] = {}
    for layer in noisy_layers(module).values():
        assert isinstance(layer, NoisyLinear)
        plain = nn.Linear.__new__(nn.Linear)
        nn.Module.__init__(plain)
        plain.in_features, plain.out_features = layer.in_features, layer.out_features
        plain.weight = layer.weight
        plain.register_parameter("bias", cast("nn.Parameter | None", layer.bias))
        plain.train(layer.training)
        _share_hooks(layer, plain)
        replacements[id(layer)] = plain
    return _replaced(module, replacements)


def _convertible(module: nn.Module) -> tuple[dict[str, nn.Linear], dict[str, str]]:
    """List {name: layer} that can become noisy, and {name: reason} of Linears that cannot."""
    candidates: dict[str, nn.Linear] = {}
    refused: dict[str, str] = {}
    read_directly: dict[int, str] = {}
    for part in module.modules():
        if isinstance(part, nn.TransformerEncoderLayer):
            reason = "its fast path reads the weights in eval mode without calling the layer"
            read_directly[id(part.linear1)] = read_directly[id(part.linear2)] = reason
    for name, part in module.named_modules():
        if not isinstance(part, nn.Linear) or isinstance(part, NoisyLinear):
            continue
        if id(part) in read_directly:
            refused[name] = read_directly[id(part)]
        elif type(part) is not nn.Linear:
            refused[name] = f"a {type(part).__name__}, not a plain Linear"
        elif not part.weight.dtype.is_floating_point:
            refused[name] = f"its weights are {part.weight.dtype}"
        elif part.state_dict().keys() - {"weight", "bias"}:
            # weight_norm, spectral_norm and pruning keep other parameters and make the weight.
            refused[name] = "it keeps more than a weight and a bias"
        else:
            candidates[name] = part
    return candidates, refused


def _share_hooks(former: nn.Module, layer: nn.Module) -> None:
    """Give a layer the hooks of the one that it replaces."""
    for name, value in former.__dict__.items():
        if name.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called", "_hook")):
            layer.__dict__[name] = value


def _replaced(module: nn.Module, replacements: dict[int, nn.Module]) -> nn.Module:
    if id(module) in replacements:
        return replacements[id(module)]
    # A layer that stands under two names is replaced under both.
    for name, part in list(module.named_modules(remove_duplicate=False)):
        if id(part) in replacements:
            parent, _, own_name = name.rpartition(".")
            setattr(module.get_submodule(parent), own_name, replacements[id(part)])
    return module
