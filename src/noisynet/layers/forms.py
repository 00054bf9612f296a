"""Which of equal forms computes a layer: a fixed table, so that a run repeats bit for bit.

Of factorised noise that a batch shares. The bounds were read from
benchmarks/results/layers/forms.json, which benchmarks/layers/forms.py measures on a CPU. On a GPU
they were not measured; fused.py says what computes there first.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Form = Literal["two products", "one product", "one product from scratch"]

TINY_WEIGHT = 2**14
"""Elements of a weight for which the noisy weight is always cheaper than a second product."""

SMALL_WEIGHT = 2**16
"""Elements of a weight that is read in the time of a few calls: there, fewer calls are cheaper."""

TWO_PRODUCTS_UP_TO = {
    # (a forward alone or with its backward, size of the weight): rows of the batch
    ("acts", "small"): 8,
    ("acts", "large"): 16,
    ("learns", "small"): 0,
    ("learns", "large"): 1,
}
"""Rows of a batch up to which two products are cheaper than building the noisy weight."""


def cheapest_form(input: Tensor, weight: Tensor, *, learns: bool) -> Form:
    """Give the form for an input (…, p) and a weight (q, p); `learns` says that a backward follows.

    Memory that is used again pays where a fresh temporary would cost page faults, of a large
    weight, and costs a backward in Python.
    """
    elements = weight.numel()
    if elements <= TINY_WEIGHT:
        return "one product"
    rows = input.numel() // weight.shape[-1]
    size = "small" if elements <= SMALL_WEIGHT else "large"
    if rows <= TWO_PRODUCTS_UP_TO["learns" if learns else "acts", size]:
        return "two products"
    return "one product" if size == "small" else "one product from scratch"
