"""The noisy linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional

from .functional import apply_linear
from .initial import InitName, NoiseOptions
from .kernels import dispatch
from .layer import NoisyLayer, check_bias, check_sizes
from .noise import (
    FactorisedNoise,
    IndependentNoise,
    LayerNoise,
    NoiseName,
    NoiseSpec,
)
from .weights import Weights


class NoisyLinear(NoisyLayer, nn.Linear):
    """A linear layer y = (μ_w + σ_w ⊙ ε_w) x + μ_b + σ_b ⊙ ε_b (arXiv 1706.10295, eq. 9).

    It is an `nn.Linear`: `weight` (q, p) and `bias` (q,) are the means μ; `weight_sigma` and
    `bias_sigma`, of the same shapes, are learned beside them. A plain Linear's checkpoint loads
    with `strict=False`; σ keeps its initial value.

    `noise` is "factorised" (p + q normals per draw; also spelled "factorized") or "independent"
    (pq + q). `init` names the paper or library whose initial values to use, with its own σ0 if
    `sigma0` is None: with "paper" 0.5 for factorised noise (σ = 0.5/√p) and 0.017 for independent
    (σ itself). With `learned=False` σ keeps its initial value and does not require grad, for noise
    that only a scale adapts (`noisynet.control.target`).

    Whether the noise is fresh, held or off does not depend on `train()` or `eval()`. A new layer is
    fresh: it makes a new draw at every forward. See `noisynet.hold`, `noisynet.resample`,
    `noisynet.release`, `noisynet.using`, `noisynet.mean_weights`.

    Input (…, p), or (…, rows, p) where one draw per row is in force, or (rows, …, p) where that
    draw has the batch first; output (…, q). Raises ValueError for an unknown option and for an
    input that does not fit.
    """

    plain = nn.Linear

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        noise: NoiseName = "factorised",
        sigma0: float | None = None,
        init: InitName = "paper",
        learned: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the layer with the initial values that `init` names."""
        check_sizes(in_features=in_features, out_features=out_features)
        check_bias(bias)
        options: Any = {"noise": noise, "sigma0": sigma0, "init": init, "learned": learned}
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype, **options)

    @classmethod
    def from_linear(cls, linear: nn.Linear, **options: Unpack[NoiseOptions]) -> Self:
        """Build a noisy layer that shares the Parameters of `linear` as its means; σ is new.

        `options` are noise, sigma0, init and learned, as in the constructor; σ requires grad if it
        is `learned`, even where the means are frozen. Raises TypeError for a layer of another kind,
        and ValueError for an unknown option or a layer that cannot become noisy.
        """
        return cls.from_plain(linear, **options)

    def noise_spec(self) -> NoiseSpec:
        """Return the spec of this layer's noise: its kind and sizes."""
        has_bias = self.bias_sigma is not None
        return NoiseSpec(self.noise, self.in_features, self.out_features, has_bias)

    def noise_to_keep(self, noise: LayerNoise) -> LayerNoise:
        """Build ε_w of a small layer once for all forwards."""
        assert isinstance(noise, FactorisedNoise | IndependentNoise), (
            "what is held is at the weights"
        )
        return dispatch.noise_to_keep(noise, self.weight_sigma.numel())

    def _fresh(self, leading: Sequence[int], batch_first: bool = False) -> LayerNoise:
        # Only without a scale: what this draws may be a seed, which cannot be scaled.
        if self.noise == "independent" and not leading and self.noise_state.multiplier is None:
            drawn = dispatch.draw_by_counter(self.weight_sigma, bias=self.bias_sigma is not None)
            if drawn is not None:
                return drawn
        return super()._fresh(leading, batch_first)

    def fresh_rows(self, leading: Sequence[int]) -> LayerNoise:
        """Draw noise for each row of an input of shape (*leading, p)."""
        reference = self.noise_reference
        return self.noise_spec().draw_rows(leading, device=reference.device, dtype=reference.dtype)

    def effective_weight(self, *, memory: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the (weight, bias) under the draw in force.

        Shapes (q, p) and (q,), or (rows, q, p) and (rows, q) with one draw per row. A fresh layer
        makes a new draw for this call; with the noise off these are the means themselves. With
        gradients off, the weight can be built in `memory`, which a caller reuses; raises ValueError
        if that has another shape.
        """
        noise = self.noise_in_force()
        if noise is None:
            return self.weight, self.bias
        learned = self._learned()
        return learned.under(noise) if memory is None else learned.under_in(memory, noise)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer to (…, p), or to (…, rows, p) under one draw per row; return (…, q)."""
        noise = self.noise_in_force(input)
        if noise is None:
            return functional.linear(input, self.weight, self.bias)
        return apply_linear(input, self._learned(), noise)

    def _learned(self) -> Weights:
        # nn.Module's own look-up of four parameters takes a good part of a small layer's time.
        own: Any = self._parameters
        if "weight" in own and "bias" in own and "weight_sigma" in own and "bias_sigma" in own:
            return Weights(own["weight"], own["bias"], own["weight_sigma"], own["bias_sigma"])
        # A parametrised μ, or tensors that temporarily replace the parameters.
        return Weights(self.weight, self.bias, self.weight_sigma, self.bias_sigma)
