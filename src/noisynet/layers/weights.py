"""The learned μ and σ of a weight and its bias, and their sum under a draw (eq. 9)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .noise import FactorisedNoise, WeightNoise


class Weights(NamedTuple):
    """μ and σ of one weight (q, p) and its bias (q,); both biases are None for a layer without."""

    weight: Tensor
    bias: Tensor | None
    weight_sigma: Tensor
    bias_sigma: Tensor | None

    def under(self, noise: WeightNoise) -> tuple[Tensor, Tensor | None]:
        """Return μ_w + σ_w ⊙ ε_w, shape (…, q, p), and μ_b + σ_b ⊙ ε_b, shape (…, q) or None."""
        noisy_weight = torch.addcmul(self.weight, self.weight_sigma, noise.weight_noise())
        return noisy_weight, self.bias_under(noise)

    def under_in(self, memory: Tensor, noise: WeightNoise) -> tuple[Tensor, Tensor | None]:
        """Return the same as `under`, the weight built in `memory`; gradients must be off.

        Raises ValueError for memory of another shape, which torch would resize.
        """
        shape = (*(noise.rows or ()), *self.weight.shape)
        if tuple(memory.shape) != shape:
            raise ValueError(f"memory: got shape {tuple(memory.shape)}, expected {shape}")
        torch.addcmul(self.weight, self.weight_sigma, noise.weight_noise(memory), out=memory)
        return memory, self.bias_under(noise)

    def by_factors(self, noise: WeightNoise) -> tuple[Tensor, Tensor | None]:
        """Return the same as `under`; a backward keeps the factors of factorised noise, not ε_w."""
        if not isinstance(noise, FactorisedNoise) or noise.weight is not None:
            return self.under(noise)
        scaled = self.weight_sigma * noise.input.unsqueeze(-2)
        noisy_weight = torch.addcmul(self.weight, scaled, noise.output.unsqueeze(-1))
        return noisy_weight, self.bias_under(noise)

    def bias_under(self, noise: WeightNoise) -> Tensor | None:
        """Return μ_b + σ_b ⊙ ε_b, shape (…, q), or None without bias."""
        if self.bias is None or self.bias_sigma is None:
            return None
        bias_noise = noise.bias_noise()
        assert bias_noise is not None, "a layer with bias draws noise for it"
        return torch.addcmul(self.bias, self.bias_sigma, bias_noise)
