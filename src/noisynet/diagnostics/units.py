"""Measurements of hidden units: their activity, and the norm and effective rank of features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..layers import draw, mean_weights, noisy_layers, using
from ..layers.restoring import buffers_preserved
from .forward_calls import unwatched
from .hidden_layer import HiddenLayer
from .unit_flow import hidden_layers

THRESHOLD = 0.025
"""Score up to which a unit counts as dormant (arXiv 2302.12902)."""
DRAWS = 4
"""Number of draws of noise over which activity is averaged."""
_REST = 0.01
"""δ of the effective rank: the share of the sum of singular values that may be left out."""


@dataclass(frozen=True)
class Units:
    """Measurements of the units of one hidden layer on a batch."""

    scores: Tensor
    """(units,): each unit's mean |activation| as a share of the mean over the layer's units."""
    dormant: float
    """The share of units whose score is at most the threshold."""
    norm: float
    """Euclidean length of the vector of the layer's activations, averaged over observations."""
    rank: int | None = None
    """Smallest number of singular values of the features that make up 99 % of their sum
    (srank, arXiv 2010.14498, §3, δ = 0.01); None unless it was requested."""


def units(
    model: nn.Module,
    batch: Any,
    *,
    threshold: float = THRESHOLD,
    draws: int = DRAWS,
    rank: bool = False,
    generator: torch.Generator | None = None,
) -> dict[str, Units]:
    """Measure the units of each hidden layer on a batch, {layer: units}.

    `batch` is an observation batch (B, …), or the tuple of arguments that the model takes. A hidden
    layer is an `nn.Linear` or a convolution, noisy or not, followed by an activation; a
    convolution's units are its filters. A unit is dormant if its mean |activation| over the batch,
    divided by the mean over the layer's units, is at most `threshold` (arXiv 2302.12902, definition
    1); if no unit is active, all are dormant. The mean is also taken over `draws` draws of noise: a
    unit that only the noise activates is not dormant. With `draws=0` activity is measured with the
    mean weights, and `rank` always is. The model, its buffers and torch's global generators are
    left as they were. Raises ValueError for a threshold outside [0, 1), a negative number of draws
    or a batch without observations.
    """
    found = measure_units(model, batch, draws=draws, generator=generator)
    features: Mapping[str, HiddenLayer] = {}
    if rank:
        features = _followed(model, batch, keep_features=True)
    return {
        name: Units(
            scores=scores(layer),
            dormant=float(is_dormant(layer, threshold).double().mean()),
            norm=float(layer.lengths) / layer.rows,
            rank=effective_rank(torch.cat(features[name].features)) if rank else None,
        )
        for name, layer in found.items()
    }


def measure_units(
    model: nn.Module, batch: Any, *, draws: int = DRAWS, generator: torch.Generator | None = None
) -> dict[str, HiddenLayer]:
    """Return a model's hidden layers, {name: layer}, with the activity of their units.

    The arguments are those of `units`.
    """
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 0:
        raise ValueError(f"draws: got {draws!r}, expected a whole number of at least 0")
    if not draws or not noisy_layers(model):
        return _followed(model, batch)
    arguments = batch if isinstance(batch, tuple) else (batch,)
    layers: dict[str, HiddenLayer] = {}
    with unwatched(), buffers_preserved(model):
        # One draw at a time: with a draw per row, a convolution would need a kernel for every row.
        for _ in range(draws):
            with using(model, draw(model, generator=generator)):
                layers = hidden_layers(model, lambda: model(*arguments), into=layers)
    return layers


def _followed(model: nn.Module, batch: Any, *, keep_features: bool = False) -> dict[str, Any]:
    """Measure one forward by the mean weights; another library's noise stays as it is."""
    arguments = batch if isinstance(batch, tuple) else (batch,)
    with unwatched(), buffers_preserved(model), mean_weights(model):
        return hidden_layers(model, lambda: model(*arguments), keep_features=keep_features)


def scores(layer: HiddenLayer) -> Tensor:
    """Return each unit's score, (units,), on the CPU.

    All are 0 if no unit is active, and NaN if any activation was NaN or infinite.
    """
    assert isinstance(layer.activity, Tensor), "a hidden layer is measured at its activation"
    activity = layer.activity.cpu().double() / layer.values
    mean = activity.mean()
    if not mean.isfinite():
        return torch.full_like(activity, math.nan)
    return activity / mean if mean > 0 else torch.zeros_like(activity)


def is_dormant(layer: HiddenLayer, threshold: float = THRESHOLD) -> Tensor:
    """Return a mask of dormant units, (units,). Raises ValueError as `check_threshold` does."""
    check_threshold(threshold)
    return scores(layer) <= threshold


def check_threshold(threshold: float) -> None:
    """Raise ValueError unless a threshold is in [0, 1): at 1, equally active units are dormant."""
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not is_number or not 0 <= threshold < 1:
        raise ValueError(f"threshold: got {threshold!r}, expected a number in [0, 1)")


def effective_rank(features: Tensor) -> int:
    """Return the effective rank of features (rows, p): srank of arXiv 2010.14498, δ = 0.01.

    It is 0 if all are 0, or any is NaN or infinite.
    """
    if not bool(features.isfinite().all()):
        return 0
    values = torch.linalg.svdvals(features.double())
    total = float(values.sum())
    if not total > 0:
        return 0
    shares = values.cumsum(0) / total
    # A share of 0.99 that rounding has made a little smaller still counts as 0.99.
    return int((shares < 1 - _REST - 1e-12).sum()) + 1
