"""What `noisify` leaves plain, in words: nothing with a weight is left out without one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

NO_PRODUCTS = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)
"""Layers that multiply no input by a matrix: embeddings pick rows, norms scale."""

PICKED = ("embed", "token", "position")
"""Words in the names of parameters that are embeddings without a layer of their own."""


def has_weight(layer: nn.Module) -> bool:
    """Return whether a layer itself, and no layer inside it, has a matrix to multiply with.

    A parameter that is a vector, or one between dimensions of size 1, is none.
    """
    if isinstance(layer, (*NO_PRODUCTS, parametrize.ParametrizationList)):
        return False
    own: list[tuple[str, Tensor]] = list(layer.named_parameters(recurse=False))
    if parametrize.is_parametrized(layer):
        own += list(layer.parametrizations.named_parameters())  # pyright: ignore[reportAttributeAccessIssue]
    return any(
        is_lazy(one) or sum(size > 1 for size in one.shape) > 1
        for name, one in own
        if not any(word in name for word in PICKED)
    )


def described(layer: nn.Module, *, convertible: bool) -> str:
    """Return why a layer with a weight stays plain, which is of no kind that is converted."""
    name = type(layer).__name__
    if any(map(is_lazy, layer.parameters(recurse=False))):
        return f"{name}: it has no shape yet, run one forward first"
    return f"{name}: choose it with where=…" if convertible else f"{name}: it has no noisy form"


def listed_by_reason(reasons: Mapping[str, str]) -> str:
    """Write {name: reason} on one line, the names of a reason together."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name or "the module itself")
    return "; ".join(f"{_shortened(some)} ({reason})" for reason, some in names.items())


def _shortened(names: Iterable[str]) -> str:
    """List names, the first six of many."""
    some = list(names)
    more = f" and {len(some) - 6} more" if len(some) > 6 else ""
    return ", ".join(some[:6]) + more
