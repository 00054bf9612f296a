"""The choice between equivalent forms of a linear layer, fixed by size and device.

Because the choice is fixed, a run repeats bit for bit. For factorised noise that a batch shares, it
follows a table of sizes, whose bounds were read from benchmarks/results/layers/forms.json, which
benchmarks/layers/forms.py measures on a CPU.

With NOISYNET_KERNELS=1, a GPU uses Triton's kernels (fused.py) for weights of more than
`SMALL_WEIGHT` elements in float32 or bfloat16. Without it, a GPU uses plain operations, since the
kernels pay off only inside a CUDA graph (docs/speed.md). At their first use on each shape, the
kernels are compared with plain operations; if the results differ, plain operations take over from
there on, with a warning. Draws per row of more than `FUSED_UP_TO` rows always use plain operations,
and so does every call for which `tracing.needs_plain_operations` is true. A fresh draw of
independent noise is used in one forward and not kept, so for the kernels the layer draws one seed
(`CounterNoise`) instead of p·q numbers. Such a draw has other values than PyTorch draws from the
same generator. The bounds were not chosen by measurement on a GPU.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from ..noise import (
    FactorisedNoise,
    IndependentNoise,
    LinearNoise,
    WeightNoise,
    standard_normals,
)
from ..weights import Weights
from . import factorised, first_use, fused, independent
from .launch import CounterNoise
from .tracing import autocast_dtype, is_exporting, needs_plain_operations

TINY_WEIGHT = 2**14
"""Elements of a weight up to which building the noisy weight is cheapest for any batch."""

SMALL_WEIGHT = 2**16
"""Elements of a weight up to which the number of calls matters more than the time to read it."""

TWO_PRODUCTS_UP_TO = {
    # (a forward alone or with its backward, size of the weight): rows of the batch
    ("acts", "small"): 8,
    ("acts", "large"): 16,
    ("learns", "small"): 0,
    ("learns", "large"): 1,
}
"""Rows of a batch up to which two products are cheaper than building the noisy weight."""

DTYPES = (torch.float32, torch.bfloat16)
"""The dtypes that Triton's kernels support."""

Form = Callable[[Tensor, Weights, Any], Tensor]
SharedForm = Literal["one product", "two products", "one product from scratch"]

SHARED_FORMS: dict[SharedForm, Form | None] = {
    "one product": None,
    "two products": factorised.two_products,
    "one product from scratch": factorised.from_scratch,
}
"""The forms for factorised noise that a batch shares; None stands for eq. 9 computed directly."""


def fast_form(input: Tensor, weights: Weights, noise: LinearNoise) -> Form | None:
    """Return the cheapest form for this call; None if that is eq. 9 computed directly."""
    shared = isinstance(noise, FactorisedNoise) and noise.output.ndim == 1
    if shared and weights.weight.numel() <= TINY_WEIGHT:
        return None  # first: for such a weight, the other checks take as long as the product
    if is_for_kernels(input, weights, noise) and _agree(input, weights, noise):
        return fused.apply
    if isinstance(noise, FactorisedNoise):
        return SHARED_FORMS[shared_form(input, weights)] if shared else factorised.two_products
    return None if isinstance(noise, IndependentNoise) else independent.at_outputs


def shared_form(input: Tensor, weights: Weights) -> SharedForm:
    """Return the form for factorised noise that a batch (…, p) shares.

    Scratch memory pays off for a large weight, where a fresh temporary would cost page faults; it
    requires a backward in Python.
    """
    weight, _, weight_sigma, _ = weights
    elements = weight.numel()
    if elements <= TINY_WEIGHT:
        return "one product"
    size = "small" if elements <= SMALL_WEIGHT else "large"
    one_product: SharedForm = "one product" if size == "small" else "one product from scratch"
    if is_exporting():
        return one_product
    rows = input.numel() // weight.shape[-1]
    learns = torch.is_grad_enabled() and (
        input.requires_grad or weight.requires_grad or weight_sigma.requires_grad
    )
    if rows <= TWO_PRODUCTS_UP_TO["learns" if learns else "acts", size]:
        return "two products"
    return one_product


def noise_to_keep(noise: WeightNoise, elements: int) -> WeightNoise:
    """Return the held noise of a weight with `elements` elements in the form to cache for forwards.

    ε_w of a small weight is built once, but only on the CPU, where the number of calls determines
    the time; a CUDA graph must read the draw at each replay.
    """
    if (
        isinstance(noise, FactorisedNoise)
        and noise.rows is None
        and noise.input.device.type == "cpu"
        and elements <= SMALL_WEIGHT
    ):
        weight = noise.weight_noise()
        return FactorisedNoise(noise.input, noise.output, noise.groups, weight, noise.batch_first)
    return noise


def is_for_kernels(input: Tensor, weights: Weights, noise: LinearNoise) -> bool:
    """Return whether Triton's kernels compute this call; rounding is the only difference."""
    if not (input.is_cuda or _settings.interpreted):
        return False
    if not isinstance(noise, FactorisedNoise | CounterNoise) or input.numel() == 0:
        return False
    weight = weights.weight
    if not _suits_kernels(weight) or not _has_triton():
        return False
    if noise.rows is not None:
        if input.numel() // weight.shape[-1] > fused.FUSED_UP_TO:
            return False
        if noise.batch_first and input.ndim > 2:
            return False  # the kernels expect the rows beside the features
    if needs_plain_operations(input, *weights, noise.bias_noise()):
        return False
    cast = autocast_dtype(input)
    return (cast in DTYPES if cast is not None else input.dtype == weight.dtype) and all(
        t.dtype == weight.dtype and t.is_contiguous() for t in weights if t is not None
    )


def draw_by_counter(weight: Tensor, *, bias: bool) -> CounterNoise | None:
    """Draw independent noise for a weight (q, p) as a seed; None where no kernel would use it."""
    if not _suits_kernels(weight) or needs_plain_operations(weight):
        return None
    if not _has_triton():
        return None
    # On the device: nothing waits for it, and a CUDA graph makes a new draw at each replay.
    seed = torch.randint(2**63 - 1, (1,), device=weight.device)
    drawn = None
    if bias:
        drawn = standard_normals(weight.shape[:1], weight.device, weight.dtype, None)
    return CounterNoise(seed, weight.shape, drawn, weight.dtype)


def _agree(input: Tensor, weights: Weights, noise: Any) -> bool:
    """Return whether kernels and plain operations agree on such calls, which are compared once."""
    key = first_use.key_of(input, weights, noise)
    if key in _settings.compared:
        return True
    if input.is_cuda and torch.cuda.is_current_stream_capturing():
        return False  # no comparison during capture; the calls before it make one
    found = first_use.difference(input, weights, noise)
    if found is None:
        _settings.compared.add(key)
        return True
    _settings.allowed = False
    warnings.warn(
        f"the kernels of NOISYNET_KERNELS=1 differ from plain operations for a weight of "
        f"{tuple(weights.weight.shape)} on {weights.weight.device} ({found}): plain operations "
        "compute from here on; please report it",
        stacklevel=2,
    )
    return False


def _is_wanted() -> bool:
    value = os.environ.get("NOISYNET_KERNELS", "")
    if value not in ("", "0", "1"):
        warnings.warn(
            f"NOISYNET_KERNELS: got {value!r}, expected 0 or 1; the kernels stay off", stacklevel=2
        )
    return value == "1"


class _Settings:
    def __init__(self) -> None:
        self.allowed = _is_wanted()
        self.interpreted = False
        self.compared: set[first_use.Key] = set()


_settings = _Settings()


@contextmanager
def _set(*, allowed: bool, interpreted: bool) -> Iterator[None]:
    former = _settings.allowed, _settings.interpreted
    _settings.allowed, _settings.interpreted = allowed, interpreted
    try:
        yield
    finally:
        _settings.allowed, _settings.interpreted = former


def plain_operations() -> AbstractContextManager[None]:
    """Use plain operations instead of the kernels inside the block, for comparisons."""
    return _set(allowed=False, interpreted=False)


def with_kernels(*, interpreted: bool = False) -> AbstractContextManager[None]:
    """Use the kernels inside the block; if `interpreted`, on the CPU, too, by interpretation."""
    return _set(allowed=True, interpreted=interpreted)


@functools.cache
def is_installed() -> bool:
    """Return whether Triton can be imported."""
    return importlib.util.find_spec("triton") is not None


@functools.cache
def _is_able(device: torch.device) -> bool:
    able = torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)
    if not able:
        warnings.warn(
            f"NOISYNET_KERNELS=1: {device} is not an NVIDIA GPU of compute capability 8.0 or more, "
            "so plain operations compute",
            stacklevel=2,
        )
    return able


def _suits_kernels(weight: Tensor) -> bool:
    """Return whether the kernels are on and support a weight's size, dtype and device."""
    if not (weight.is_cuda or _settings.interpreted) or not _settings.allowed:
        return False
    if torch.compiler.is_compiling():
        return False
    if not SMALL_WEIGHT < weight.numel() < 2**31 or weight.dtype not in DTYPES:
        return False
    return _settings.interpreted or _is_able(weight.device)


@functools.cache
def _has_triton() -> bool:
    if not is_installed():
        warnings.warn(
            "NOISYNET_KERNELS=1: Triton is not installed, so plain operations compute; fresh "
            "independent noise has the same distribution and other numbers for the same seed",
            stacklevel=2,
        )
    return is_installed()
