"""The normals that the kernels generate from a seed, by plain operations on any device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

WORD = 2**32 - 1


def normals(seed: Tensor, shape: torch.Size) -> Tensor:
    """Return the ε_w, shape (q, p), that triton.py generates from `seed`, in float32.

    ε_w[j, 4c + k] is the k-th normal of counter j · ⌈p/4⌉ + c of Philox-4x32-10 (Salmon et al.,
    2011), whose four words the Box-Muller transform turns into two pairs of normals.
    """
    outputs, inputs = shape
    counters = outputs * -(-inputs // 4)
    words = _philox(torch.arange(counters, device=seed.device), seed)
    # Words are read as signed integers and folded into [0, 1).
    u = [torch.where(word > WORD // 2, WORD - word, word).float() * 2.0**-31 for word in words]
    four: list[Tensor] = []
    for first, second in ((u[0], u[1]), (u[2], u[3])):
        radius, angle = (-2 * first.clamp(min=1e-7).log()).sqrt(), 2 * math.pi * second
        four += [radius * angle.cos(), radius * angle.sin()]
    return torch.stack(four, dim=-1).reshape(outputs, -1)[:, :inputs]


def _philox(counter: Tensor, seed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    zero = torch.zeros_like(counter)
    a, b, c, d = counter, zero, zero, zero
    left_key, right_key = seed & WORD, seed >> 32
    for _ in range(10):
        left_high, left_low = _multiplied(0xCD9E8D57, c)
        right_high, right_low = _multiplied(0xD2511F53, a)
        a, b = left_high ^ b ^ left_key, left_low
        c, d = right_high ^ d ^ right_key, right_low
        left_key, right_key = (left_key + 0x9E3779B9) & WORD, (right_key + 0xBB67AE85) & WORD
    return a, b, c, d


def _multiplied(factor: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """Return the high and the low word of a product, which would overflow a signed integer."""
    low = factor * (word & 0xFFFF)
    high = factor * (word >> 16) + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)
