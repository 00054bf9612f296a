"""The noisy linear layer with a transposed weight: `Conv1D` of transformers, GPT-2's linear layer.

That class is recognised, and made noisy, without importing its package.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .functional import apply_linear, check_features
from .layer import NoisyLayer
from .noise import LayerNoise, NoiseSpec
from .weights import Weights

WHERE = "transformers.pytorch_utils"


class NoisyTransposedLinear(NoisyLayer):
    """A noisy linear layer whose weight is (inputs, outputs).

    A subclass, made by `noisy_kind_of`, is also the plain layer of that shape, with `nx` inputs and
    `nf` outputs. Everything else is as in `noisynet.NoisyLinear`.
    """

    nx: int
    nf: int

    def noise_spec(self) -> NoiseSpec:
        """Return the spec of this layer's noise: its kind and sizes."""
        return NoiseSpec(self.noise, self.nx, self.nf, bias=self.bias is not None)

    def weights(self) -> tuple[Weights, ...]:
        """Return μ and σ of the weight, seen as (q, p), and its bias."""
        return (Weights(self.weight.mT, self.bias, self.weight_sigma.mT, self.bias_sigma),)

    def means(self) -> list[tuple[Tensor, Tensor | None]]:
        """Return μ of the weight, seen as (q, p), and its bias."""
        return [(weight.mT, bias) for weight, bias in super().means()]

    def sigmas(self) -> list[tuple[Tensor, Tensor | None]]:
        """Return σ of the weight, seen as (q, p), and of its bias."""
        return [(weight.mT, bias) for weight, bias in super().sigmas()]

    def fresh_rows(self, leading: Sequence[int]) -> LayerNoise:
        """Draw noise for each row of an input of shape (*leading, p)."""
        reference = self.noise_reference
        return self.noise_spec().draw_rows(leading, device=reference.device, dtype=reference.dtype)

    def effective_weight(self) -> tuple[Tensor, Tensor | None]:
        """Return the (weight, bias) under the draw in force, in the layer's own transposed layout.

        Shapes (p, q) and (q,), with a leading dimension of rows for one draw per row.
        """
        noise = self.noise_in_force()
        if noise is None:
            return self.weight, self.bias
        weight, bias = self.weights()[0].under(noise)
        return weight.mT, bias

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to (…, p); return (…, q)."""
        noise = self.noise_in_force(x)
        if noise is None:
            check_features(x, self.nx)
            return super().forward(x)
        return apply_linear(x, self.weights()[0], noise)

    def __repr__(self) -> str:
        """Return class, sizes and noise; the plain layer's repr would give its own class name."""
        state = f"noise={self.noise!r} ({self._state_in_words()})"
        return f"{type(self).__name__}(nf={self.nf}, nx={self.nx}, {state})"


def conv1d_of_transformers() -> type[nn.Module] | None:
    """Return the class of GPT-2's linear layer; None if it is not imported, so no model has it."""
    return getattr(sys.modules.get(WHERE), "Conv1D", None)


@functools.cache
def noisy_kind_of(plain: type[nn.Module]) -> type[NoisyTransposedLinear]:
    """Build the noisy class of a plain class with a transposed weight."""
    body: dict[str, Any] = {"plain": plain, "__module__": __name__, "__doc__": plain.__doc__}
    return type("NoisyTransformersConv1D", (NoisyTransposedLinear, plain), body)


def __getattr__(name: str) -> Any:
    """Return the class that a pickle names, which may not have been built yet in this process."""
    if name != "NoisyTransformersConv1D":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return noisy_kind_of(importlib.import_module(WHERE).Conv1D)
