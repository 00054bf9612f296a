"""Checks for the machinery of PyTorch around a call: compilers, exports, `torch.func`, autocast."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

PLAIN = (Tensor, nn.Parameter)

_in_torch_export: Callable[[], bool] = getattr(
    # PyTorch before 2.7 can only tell that some compiler is at work.
    torch.compiler,
    "is_exporting",
    torch.compiler.is_compiling,
)

in_jit_trace: Callable[[], bool] = torch.jit.is_tracing  # pyright: ignore[reportPrivateImportUsage]
"""Return whether `torch.jit.trace` is at work."""


def is_exporting() -> bool:
    """Return whether `torch.export` or `torch.jit.trace` makes a graph, for any batch size."""
    return _in_torch_export() or in_jit_trace()


def warn_of_frozen_draw() -> None:
    """Warn if an export is at work, since its graph keeps the draw in force as constants.

    Versions of PyTorch that cannot tell `torch.export` from other compilers do not warn there.
    """
    if in_jit_trace() or (hasattr(torch.compiler, "is_exporting") and _in_torch_export()):
        warnings.warn(
            "the exported graph keeps the noise draw that is in force as constants; "
            "export noisynet.denoise(net) for the means alone",
            stacklevel=2,
        )


# The compiler calls it while tracing, but does not trace it: see `_in_onnx_export` below.
warn_of_frozen_draw._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


def uncompiled() -> AbstractContextManager[Any]:
    """Run compiled modules as they were written inside the block.

    Compiled code calls no hooks of others, and a measurement that comes with hooks or other draws
    would compile it again.
    """
    # Without the compiler's modules nothing is compiled, and importing them takes seconds.
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def needs_plain_operations(*tensors: Tensor | None) -> bool:
    """Return whether a call must use plain operations: under compilers, `torch.func`, forward AD.

    These, and tensors that only stand for others (fake or distributed ones), handle plain
    operations by themselves, but do not allow memory that is reused.
    """
    # autograd.Function itself asks the same private question; there is no public one.
    in_func = torch._C._are_functorch_transforms_active  # pyright: ignore[reportPrivateUsage]
    if torch.compiler.is_compiling() or in_jit_trace() or in_func():
        return True
    # `unpack_dual` checks this first; here it is checked once for all tensors.
    in_forward_ad = forward_ad._current_level >= 0  # pyright: ignore[reportPrivateUsage]
    for tensor in tensors:
        if tensor is None:
            continue
        if type(tensor) not in PLAIN:
            return True
        if in_forward_ad and forward_ad.unpack_dual(tensor).tangent is not None:
            return True
    return False


def is_for_onnx() -> bool:
    """Return whether an export to ONNX is at work."""
    tracing = torch.compiler.is_compiling() or in_jit_trace()
    return tracing and _in_onnx_export()


def _in_onnx_export() -> bool:
    return torch.onnx.is_in_onnx_export()


# Called while the compiler traces, which would otherwise assume that the answer is no. This is all
# that `torch.compiler.assume_constant_result` does, which imports the whole compiler first.
_in_onnx_export._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


def autocast_dtype(input: Tensor) -> torch.dtype | None:
    """Return the dtype in which autocast computes a linear layer of this input; None without it.

    As for `nn.Linear`, autocast leaves float64 alone.
    """
    device = input.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return None
    return None if input.dtype == torch.float64 else torch.get_autocast_dtype(device)


@torch.library.custom_op("noisynet::snapshot", mutates_args=(), schema="(Tensor x) -> Tensor")
def _opaque_copy(x: Tensor) -> Tensor:
    return x.clone()


@_opaque_copy.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def snapshot(tensor: Tensor) -> Tensor:
    """Copy a tensor that will be overwritten in place, so that a backward finds its former values.

    A compiler knows that a clone is cheap, and may repeat it in the backward, when the tensor has
    other values; under compilation the copy is an operation that the compiler does not know.
    """
    return _opaque_copy(tensor) if torch.compiler.is_compiling() else tensor.clone()
