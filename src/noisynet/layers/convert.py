"""Turn plain layers into noisy ones and back, keeping what they learned."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from .conv import NoisyConv1d, NoisyConv2d
from .layer import NoisyLayer, check_noise_options, is_uninitialised, keeps_more, take_over
from .linear import NoisyLinear
from .recurrent import NoisyGRUCell, NoisyLSTMCell
from .states import noisy_layers

Where = Callable[[str, nn.Module], bool]

NOISY: dict[type[nn.Module], type[NoisyLayer]] = {
    kind.plain: kind
    for kind in (NoisyLinear, NoisyConv1d, NoisyConv2d, NoisyLSTMCell, NoisyGRUCell)
}
"""The noisy layer of each kind of plain one."""


def noisify(
    module: nn.Module,
    where: Where | None = None,
    noise: str = "factorised",
    sigma0: float | None = None,
    init: str = "paper",
    learned: bool = True,
) -> nn.Module:
    """Make layers noisy in place, keeping their trained means.

    By default every plain `nn.Linear`, as in the paper. `where(name, layer) → bool` chooses
    instead, and is asked about every layer that can be converted: plain `nn.Linear`, `nn.Conv1d`,
    `nn.Conv2d`, `nn.LSTMCell` and `nn.GRUCell`.

    μ stay the very Parameter objects; σ are new, get the initial value that `init` names, and
    require grad if they are `learned` (`sigma_parameters` lists them for an optimizer that exists
    already). A layer that stands in several places stays one layer. Layers that share a mean and
    are converted together share its σ too; their draws stay apart.

    Layers whose weights other code reads or makes (attention, transformers' fast path,
    parametrisations, pruning) stay as they are, and so do fused `nn.LSTM` and `nn.GRU`. By default
    one warning names the Linears among them; with `where` there is none, as it was not asked about
    them. Returns the module, or for a root layer a new one that shares its Parameters.
    Raises ValueError for an unknown option, and where there is nothing to convert.
    """
    check_noise_options(noise, sigma0, init, learned)
    if where is not None and not callable(where):
        raise TypeError(f"where: got {where!r}, expected a function of (name, layer), or None")
    is_noisy = bool(noisy_layers(module))
    kinds = tuple(NOISY) if where is not None else (nn.Linear,)
    candidates, refused = _convertible(module, kinds)
    if refused and where is None:
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
                else f"it has no {_listed(kinds)} that can be"
                + (", and is noisy already" if is_noisy else "")
            )
        )
    replacements: dict[int, nn.Module] = {}
    sigmas: dict[int, nn.Parameter] = {}
    for name in chosen:
        layer = candidates[name]
        noisy = NOISY[type(layer)].from_plain(
            layer, noise=noise, sigma0=sigma0, init=init, learned=learned
        )
        _share_sigmas(noisy, sigmas)
        _share_hooks(layer, noisy)
        replacements[id(layer)] = noisy
    return _replaced(module, replacements)


def denoise(module: nn.Module) -> nn.Module:
    """Make plain torch layers with the means out of the noisy ones, in place.

    The means stay the very Parameter objects. Returns the module, or for a noisy root a new plain
    layer that shares its Parameters. Raises ValueError, and changes nothing, for a lazy layer that
    has seen no input yet, for one whose weights something else makes (a parametrisation, pruning),
    and for one with a forward of its own, which would be lost.
    """
    replacements: dict[int, nn.Module] = {}
    for name, layer in noisy_layers(module).items():
        reason = _reason_to_stay_noisy(layer)
        if reason is not None:
            raise ValueError(f"{name!r}: a {type(layer).__name__}: {reason}")
        kind = next(kind for kind in NOISY if isinstance(layer, kind))
        plain: nn.Module = kind.__new__(kind)
        take_over(plain, layer, kind)
        _share_hooks(layer, plain)
        replacements[id(layer)] = plain
    return _replaced(module, replacements)


def _convertible(
    module: nn.Module, kinds: tuple[type[nn.Module], ...]
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """List {name: layer} that can become noisy, and {name: reason} of those that cannot."""
    candidates: dict[str, nn.Module] = {}
    refused: dict[str, str] = {}
    read_directly: set[int] = set()
    for part in module.modules():
        if isinstance(part, nn.TransformerEncoderLayer):
            read_directly |= {id(part.linear1), id(part.linear2)}
    for name, part in module.named_modules():
        if not isinstance(part, kinds) or isinstance(part, NoisyLayer):
            continue
        if id(part) in read_directly:
            reason = "its fast path reads the weights in eval mode without calling the layer"
        else:
            reason = _reason_against(part, kinds)
        if reason is None:
            candidates[name] = part
        else:
            refused[name] = reason
    return candidates, refused


def _reason_against(layer: nn.Module, kinds: tuple[type[nn.Module], ...]) -> str | None:
    """Return why a layer cannot become noisy; None where it can."""
    if is_uninitialised(layer):
        return f"a {type(layer).__name__} that has no shape yet: run one forward first"
    if type(layer) not in kinds:
        kind = next(kind for kind in kinds if isinstance(layer, kind))
        return f"a {type(layer).__name__}, not a plain {kind.__name__}"
    for mean in layer.parameters(recurse=False):
        if not mean.dtype.is_floating_point:
            return f"its weights are {mean.dtype}"
        if mean.numel() == 0:
            return "it has no inputs or no outputs"
    if keeps_more(layer):
        return "it keeps more than weights and biases"
    if "forward" in vars(layer):
        return "its forward was replaced by another"
    return None


def _reason_to_stay_noisy(layer: NoisyLayer) -> str | None:
    """Return why a noisy layer cannot become plain; None where it can."""
    # Also one whose shape a checkpoint has set: it still waits for its input.
    if isinstance(layer, LazyModuleMixin):
        return "run one forward first"
    if keeps_more(layer):
        return "it keeps more than weights and biases"
    own = next(kind for kind in NOISY.values() if isinstance(layer, kind))
    if type(layer).forward is not own.forward or "forward" in vars(layer):
        return f"its forward is not that of {own.__name__}"
    return None


def _listed(kinds: tuple[type[nn.Module], ...]) -> str:
    names = [f"nn.{kind.__name__}" for kind in kinds]
    return ", ".join(names[:-1]) + " or " + names[-1] if len(names) > 1 else names[0]


def _share_sigmas(noisy: NoisyLayer, sigmas: dict[int, nn.Parameter]) -> None:
    """Let a layer share the σ that its means have already, {id of a mean: its σ}."""
    for name, mean in list(noisy.named_parameters(recurse=False, remove_duplicate=False)):
        if not name.endswith("_sigma"):
            own: Any = getattr(noisy, f"{name}_sigma")
            setattr(noisy, f"{name}_sigma", sigmas.setdefault(id(mean), own))


def _share_hooks(former: nn.Module, layer: nn.Module) -> None:
    """Move the hooks of a layer to the one that replaces it."""
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
