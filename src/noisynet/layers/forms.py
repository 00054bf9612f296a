"""Which of two equal forms computes a layer: a fixed table, so that a run repeats bit for bit.

The bounds were read from benchmarks/results/layers/forms.json, which benchmarks/forms.py measures,
on a CPU. On a GPU they were not measured.
"""

from __future__ import annotations

from torch import Tensor

SMALL_WEIGHT = 2**15
"""Elements of a weight that reads as fast as Python calls: there, fewer calls are cheaper."""

TWO_PRODUCTS_UP_TO = {
    # (a forward alone or with its backward, size of the weight): rows of the batch
    ("acts", "small"): 32,
    ("acts", "large"): 16,
    ("learns", "small"): 24,
    ("learns", "large"): 1,
}
"""Rows of a batch up to which two products are cheaper than building the noisy weight."""


def two_products_are_cheaper(input: Tensor, weight: Tensor, *, learns: bool) -> bool:
    """Tell whether factorised noise shared by the batch is best applied without its matrix."""
    rows = input.numel() // weight.shape[-1]
    size = "small" if weight.numel() <= SMALL_WEIGHT else "large"
    return rows <= TWO_PRODUCTS_UP_TO["learns" if learns else "acts", size]
