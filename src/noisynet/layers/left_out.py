"""The reasons why `noisify` leaves layers with a weight plain, in words for its warning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from .layer import is_uninitialised

NO_PRODUCTS = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)
"""Layers that do not multiply by a matrix: embeddings select rows, norms scale."""

PICKED = ("embed", "token", "position")
"""Words in the names of parameters that are embeddings without a layer of their own."""


def has_weight(layer: nn.Module) -> bool:
    """Return whether a layer itself, rather than a layer inside it, has a matrix to multiply with.

    A parameter counts as a matrix if at least two of its dimensions are larger than 1.
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
    """Return the reason why a layer whose class is not being converted stays plain."""
    name = type(layer).__name__
    if is_uninitialised(layer):
        return f"{name}: it has no shape yet, run one forward first"
    return f"{name}: choose it with where=…" if convertible else f"{name}: it has no noisy form"


def listed_by_reason(reasons: Mapping[str, str]) -> str:
    """Format {name: reason} on one line, with the names grouped by reason."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name or "the module itself")
    return "; ".join(f"{shortened(some)} ({reason})" for reason, some in names.items())


def shortened(names: Iterable[str]) -> str:
    """Join names with commas; of more than six, list the first six and count the rest."""
    some = list(names)
    more = f" and {len(some) - 6} more" if len(some) > 6 else ""
    return ", ".join(some[:6]) + more
