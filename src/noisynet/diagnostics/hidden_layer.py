"""A hidden layer: what reads its units, and how active they were, as a traced forward finds it."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass(frozen=True)
class Reader:
    """A layer that reads units: unit i is its inputs i · block to (i + 1) · block − 1."""

    module: nn.Module
    block: int


@dataclass
class HiddenLayer:
    """A layer followed by an activation: what reads its units, and how active they were."""

    name: str
    module: nn.Module
    units: int
    norms: list[nn.Module] = field(default_factory=list)
    """Normalisations between the layer and its activation."""
    readers: dict[str, Reader] = field(default_factory=dict)
    unknown: str | None = None
    """What keeps the units from being traced to all their readers; None if nothing does."""

    activity: Tensor | float = 0.0
    """Sum of |activation| of each unit, (units,)."""
    values: int = 0
    """Number of values in each of these sums."""
    lengths: Tensor | float = 0.0
    """Sum over rows of the Euclidean length of a row's activations."""
    rows: int = 0
    features: list[Tensor] = field(default_factory=list)
    """(rows, features) of each forward, if they are kept."""
