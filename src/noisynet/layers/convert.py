"""Turn plain layers into noisy ones and back, keeping what they learned."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, overload

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.parametrize import type_before_parametrizations

from .attention import NoisyMultiheadAttention
from .conv import NoisyConv1d, NoisyConv2d, NoisyConv3d
from .conv_transposed import NoisyConvTranspose1d, NoisyConvTranspose2d, NoisyConvTranspose3d
from .initial import InitName
from .layer import NoisyLayer, check_noise_options, is_uninitialised, keeps_more, take_over
from .left_out import described, has_weight, listed_by_reason
from .linear import NoisyLinear
from .noise import NoiseName
from .parametrised import parametrised_names
from .recurrent import NoisyGRUCell, NoisyLSTMCell
from .rnn import NoisyGRU, NoisyLSTM, NoisyRNN
from .states import noisy_layers
from .transformer import KEPT_OFF, keep_off_fast_paths
from .transposed import NoisyTransposedLinear, conv1d_of_transformers, noisy_kind_of

M = TypeVar("M", bound=nn.Module)
Where = Callable[[str, nn.Module], bool]
Kinds = dict[type[nn.Module], type[NoisyLayer]]

LINEAR: Kinds = {kind.plain: kind for kind in (NoisyLinear, NoisyMultiheadAttention)}
"""Noisy classes by plain class, for the linear layers, which `noisify` converts by default."""

OTHERS: Kinds = {
    kind.plain: kind
    for kind in (
        NoisyConv1d,
        NoisyConv2d,
        NoisyConv3d,
        NoisyConvTranspose1d,
        NoisyConvTranspose2d,
        NoisyConvTranspose3d,
        NoisyLSTMCell,
        NoisyGRUCell,
        NoisyLSTM,
        NoisyGRU,
        NoisyRNN,
    )
}
"""Noisy classes by plain class, for the layers that are converted only if `where` chooses them."""


@overload
def noisify(
    module: nn.Linear,
    where: Where | None = None,
    noise: NoiseName = "factorised",
    sigma0: float | None = None,
    init: InitName = "paper",
    learned: bool = True,
) -> NoisyLinear: ...
@overload
def noisify(
    module: M,
    where: Where | None = None,
    noise: NoiseName = "factorised",
    sigma0: float | None = None,
    init: InitName = "paper",
    learned: bool = True,
) -> M: ...
def noisify(
    module: nn.Module,
    where: Where | None = None,
    noise: NoiseName = "factorised",
    sigma0: float | None = None,
    init: InitName = "paper",
    learned: bool = True,
) -> nn.Module:
    """Make layers noisy in place, keeping their trained means.

    By default, every plain linear layer becomes noisy, as in the paper: `nn.Linear`, the
    projections of `nn.MultiheadAttention`, and the `Conv1D` of transformers, which is GPT-2's
    linear layer. Within `nn.TransformerEncoder` and `nn.TransformerDecoder` those are all products
    with a weight. `where(name, layer) → bool` chooses instead. It is called for every layer that
    can be converted: the linear ones, plain convolutions (`nn.Conv1d` to `nn.ConvTranspose3d`),
    `nn.LSTMCell`, `nn.GRUCell`, `nn.LSTM`, `nn.GRU` and `nn.RNN`.

    The means μ remain the same Parameter objects. σ are new, get the initial value that `init`
    names, and require grad if they are `learned` (`sigma_parameters` lists them for an optimizer
    that exists already). A layer that is used in several places remains one layer. Layers that
    share a mean and are converted together share its σ too, but not their draws. A transformer
    encoder with noisy layers does not take PyTorch's fast path, which would read only their means,
    while noise is in force.

    A layer under `torch.nn.utils.parametrizations`, such as `spectral_norm`, keeps them: the noise
    is added to the weight that they compute. Layers whose weights other code reads or computes
    (pruning, the older `torch.nn.utils.spectral_norm`, attention and recurrent layers under
    parametrisations, user-defined subclasses) stay plain. Without `where`, one warning lists these
    and every other layer with a weight that stays plain, so that none is left out silently;
    embeddings, which select rows, and norms, which scale, are not listed. With `where` there is no
    warning, since the choice was explicit.

    Returns the module, or, if the module itself is converted, a new layer that shares its
    Parameters. Raises ValueError for an unknown option, and if there is nothing to convert.
    """
    check_noise_options(noise, sigma0, init, learned)
    if where is not None and not callable(where):
        raise TypeError(f"where: got {where!r}, expected a function of (name, layer), or None")
    is_noisy = bool(noisy_layers(module))
    kinds = _kinds(everything=where is not None)
    candidates, refused = _convertible(module, kinds)
    left = f"noisify leaves alone: {listed_by_reason(refused)}" if refused and where is None else ""
    chosen = [name for name in candidates if where is None or where(name, candidates[name])]
    if not chosen:
        raise ValueError(
            f"{type(module).__name__}: nothing to convert: "
            + (
                f"where chose none of {', '.join(map(repr, candidates))}"
                if candidates
                else f"it has no {_listed(kinds)} that can be noisy"
                + (", and is noisy already" if is_noisy else "")
            )
            + (f"; {left}" if left else "")
        )
    if left:
        warnings.warn(left, stacklevel=2)
    replacements: dict[int, nn.Module] = {}
    sigmas: dict[int, nn.Parameter] = {}
    for name in chosen:
        layer = candidates[name]
        kind = kinds[type_before_parametrizations(layer)]
        noisy = kind.from_plain(layer, noise=noise, sigma0=sigma0, init=init, learned=learned)
        for inner, part in noisy_layers(noisy).items():
            _share_sigmas(part, sigmas)
            _share_hooks(layer.get_submodule(inner), part, lives_on=layer is module)
        replacements[id(layer)] = noisy
    return _replaced(module, replacements)


@overload
def denoise(module: NoisyLinear) -> nn.Linear: ...
@overload
def denoise(module: NoisyLayer) -> nn.Module: ...
@overload
def denoise(module: M) -> M: ...
def denoise(module: nn.Module) -> nn.Module:
    """Turn noisy layers back into plain torch layers with the same means, in place.

    The means remain the same Parameter objects, and keep their parametrisations. Returns the
    module, or, if the module itself is a noisy layer, a new plain layer that shares its Parameters.
    Raises ValueError, and changes nothing, for a lazy layer that has seen no input yet, for a layer
    whose weights something else computes (pruning, or a parametrisation of σ), and for one with a
    forward of its own, which would be lost.
    """
    replacements: dict[int, nn.Module] = {}
    for name, layer in noisy_layers(module).items():
        reason = _reason_to_stay_noisy(layer)
        if reason is not None:
            raise ValueError(f"{name!r}: a {type(layer).__name__}: {reason}")
        plain: nn.Module = layer.plain.__new__(layer.plain)
        take_over(plain, layer, layer.plain)
        _share_hooks(layer, plain, lives_on=layer is module)
        replacements[id(layer)] = plain
    return _replaced(module, replacements)


def _kinds(*, everything: bool) -> Kinds:
    """Return {plain class: noisy class} for linear layers, or `everything` that can be noisy."""
    conv1d = conv1d_of_transformers()
    imported: Kinds = {} if conv1d is None else {conv1d: noisy_kind_of(conv1d)}
    return {**LINEAR, **imported, **(OTHERS if everything else {})}


def _convertible(module: nn.Module, kinds: Kinds) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Return {name: layer} that can become noisy, and {name: reason} for layers that stay plain."""
    candidates: dict[str, nn.Module] = {}
    refused: dict[str, str] = {}
    read_directly: set[int] = set()
    inside_attention: set[int] = set()
    for part in module.modules():
        if isinstance(part, nn.TransformerEncoderLayer) and not _is_kept_off(part):
            names = ("self_attn", "linear1", "linear2")
            read_directly |= {id(getattr(part, name, None)) for name in names}
        if isinstance(part, nn.MultiheadAttention):
            inside_attention.add(id(part.out_proj))
    for name, part in module.named_modules():
        if isinstance(part, NoisyLayer) or id(part) in inside_attention:
            continue
        if not isinstance(part, tuple(kinds)):
            if not has_weight(part):
                continue
            reason = described(part, convertible=type_before_parametrizations(part) in OTHERS)
        elif id(part) in read_directly:
            reason = "the fast path of its encoder may read the weights without calling the layer"
        else:
            reason = _reason_against(part, tuple(kinds))
        if reason is None:
            candidates[name] = part
        else:
            refused[name] = reason
    return candidates, refused


def _is_kept_off(encoder: nn.Module) -> bool:
    """Return whether an encoder can be kept off PyTorch's fast path while noise is in force."""
    return type(encoder) in KEPT_OFF or type(encoder) in KEPT_OFF.values()


def _reason_against(layer: nn.Module, kinds: tuple[type[nn.Module], ...]) -> str | None:
    """Return why a layer cannot become noisy; None where it can."""
    if is_uninitialised(layer):
        return f"a {type(layer).__name__} that has no shape yet: run one forward first"
    if type_before_parametrizations(layer) not in kinds:
        kind = next(kind for kind in kinds if isinstance(layer, kind))
        return f"a {type(layer).__name__}, not a plain {kind.__name__}"
    for mean in layer.parameters(recurse=False):
        if not mean.dtype.is_floating_point:
            return f"its weights are {mean.dtype}"
        if mean.numel() == 0:
            return "it has no inputs or no outputs"
    if keeps_more(layer):
        return "it keeps more than weights and biases"
    if isinstance(layer, nn.RNNBase) and parametrised_names(layer):
        # PyTorch's own forward computes each weight an unspecified number of times.
        return "its weights are made by parametrisations"
    if "forward" in vars(layer):
        return "its forward was replaced by another"
    if isinstance(layer, nn.MultiheadAttention):
        expected = NoisyMultiheadAttention.out_layer.plain
        if type(layer.out_proj) is not expected:
            return f"its out_proj is a {type(layer.out_proj).__name__}"
    return None


def _reason_to_stay_noisy(layer: NoisyLayer) -> str | None:
    """Return why a noisy layer cannot become plain; None where it can."""
    # Even if a checkpoint has set its shape, it is still waiting for its first input.
    if isinstance(layer, LazyModuleMixin):
        return "run one forward first"
    if keeps_more(layer):
        return "it keeps more than weights and biases"
    # NoisyLayer comes last, for layers that a user has defined.
    kinds = (*LINEAR.values(), NoisyTransposedLinear, *OTHERS.values(), NoisyLayer)
    own = next(kind for kind in kinds if isinstance(layer, kind))
    if type(layer).forward is not own.forward or "forward" in vars(layer):
        return f"its forward is not that of {own.__name__}"
    return None


def _listed(kinds: Kinds) -> str:
    names = [f"nn.{kind.__name__}" for kind in kinds if kind.__module__.startswith("torch.nn")]
    return ", ".join(names[:-1]) + " or " + names[-1] if len(names) > 1 else names[0]


def _share_sigmas(noisy: NoisyLayer, sigmas: dict[int, nn.Parameter]) -> None:
    """Let a layer share the σ that its means already have in `sigmas`, {id of a mean: its σ}."""
    for name, mean in list(noisy.named_parameters(recurse=False, remove_duplicate=False)):
        own: Any = getattr(noisy, f"{name}_sigma", None)
        if own is not None:
            setattr(noisy, f"{name}_sigma", sigmas.setdefault(id(mean), own))


def _share_hooks(former: nn.Module, layer: nn.Module, *, lives_on: bool) -> None:
    """Let a new layer share the hooks of a former one, which `lives_on` if it is the root."""
    for name, value in former.__dict__.items():
        if name.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called", "_hook")):
            layer.__dict__[name] = value
    hooks = vars(layer)["_load_state_dict_pre_hooks"]
    if lives_on:
        hooks = vars(layer)["_load_state_dict_pre_hooks"] = copy.copy(hooks)
    for key, hook in hooks.items():
        if hook.with_module:  # PyTorch passes it the module that it is bound to
            hooks[key] = type(hook)(hook.hook, layer)


def _replaced(module: nn.Module, replacements: dict[int, nn.Module]) -> nn.Module:
    # A layer with two names is replaced under both; a layer inside another one, after it.
    named = list(module.named_modules(remove_duplicate=False))
    root = replacements.get(id(module), module)
    for name, part in named:
        if id(part) in replacements and part is not module:
            parent, _, own_name = name.rpartition(".")
            setattr(root.get_submodule(parent), own_name, replacements[id(part)])
    for part in root.modules():
        for name, value in list(vars(part).items()):
            if name not in _REGISTERS:
                vars(part)[name] = _with_new_layers(value, replacements, set())
    keep_off_fast_paths(root)
    return root


_REGISTERS = frozenset(vars(nn.Module()))
"""The attributes in which PyTorch itself keeps parts, tensors and hooks."""


def _with_new_layers(value: Any, replacements: dict[int, nn.Module], seen: set[int]) -> Any:
    """Put new layers in the places of former ones in plain lists, tuples and dicts of a module.

    A forward may loop over such a list, beside which the layers are registered one by one.
    """
    if isinstance(value, nn.Module):
        return replacements.get(id(value), value)
    if type(value) not in (list, dict, tuple) or id(value) in seen:
        return value
    seen.add(id(value))
    if type(value) is dict:
        for key, one in value.items():
            value[key] = _with_new_layers(one, replacements, seen)
        return value
    now = [_with_new_layers(one, replacements, seen) for one in value]
    if all(one is former for one, former in zip(now, value, strict=True)):
        return value
    if type(value) is tuple:
        return tuple(now)
    value[:] = now
    return value
