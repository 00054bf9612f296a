"""The precision that a network's products are computed in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def products_in(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Compute products inside in bfloat16, or leave everything in float32."""
    if precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
