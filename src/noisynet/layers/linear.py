"""The noisy linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from .kernels import dispatch as forms, fused
from . import initial
from .functional import noisy_linear, noisy_parameters
from .noise import (
    NOISE_KINDS,
    FactorisedNoise,
    LayerNoise,
    LinearNoise,
    NoiseKind,
    NoiseSpec,
    OutputNoise,
    standard_normals,
)
from .layer import NoisyLayer, take_over


def check_noise_options(noise: str, sigma0: float | None, init: str) -> NoiseKind:
    """Return the kind of noise; raises ValueError for an unknown kind, σ0 or preset."""
    if noise not in NOISE_KINDS:
        raise ValueError(f"noise: got {noise!r}, expected one of {', '.join(NOISE_KINDS)}")
    initial.check_sigma0(sigma0)
    kind = cast(NoiseKind, noise)
    initial.check_init(init, kind)
    return kind


def check_bias(bias: bool) -> None:
    """Raise ValueError unless `bias` is a bool: other libraries' layers take σ in its place."""
    if not isinstance(bias, bool):
        raise ValueError(f"bias: got {bias!r}, expected True or False; name noise= and sigma0=")


def check_sizes(**sizes: int) -> None:
    """Raise ValueError unless all sizes are integers of at least 1."""
    for name, value in sizes.items():
        if not isinstance(value, int | Integral):
            raise ValueError(f"{name}: got {value!r}, expected an integer")
        if value < 1:
            raise ValueError(f"{name}: got {value}, expected at least 1")


class NoisyLinear(NoisyLayer, nn.Linear):
    """Apply y = (μ_w + σ_w ⊙ ε_w) x + μ_b + σ_b ⊙ ε_b (arXiv 1706.10295, eq. 9).

    It is an `nn.Linear`: `weight` (q, p) and `bias` (q,) are the means μ; `weight_sigma` and
    `bias_sigma`, of the same shapes, are learned beside them. A plain Linear's checkpoint loads
    with `strict=False`; σ keeps its initial value.

    `noise` is "factorised" (p + q normals a draw) or "independent" (pq + q). `init` names whose
    initial values to take, and `sigma0=None` is theirs: with "paper" 0.5 for factorised noise
    (σ = 0.5/√p) and 0.017 for independent (σ itself).

    The noise has three states of its own, and none of them depends on `train()` or `eval()`: a new
    layer is fresh (a new draw at every forward); see `noisynet.hold`, `noisynet.resample`,
    `noisynet.release`, `noisynet.using`, `noisynet.mean_weights`.

    Input (…, p), or (…, rows, p) where one draw per row is in force; output (…, q). Raises
    ValueError for an unknown option and for an input that does not fit.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        noise: str = "factorised",
        sigma0: float | None = None,
        init: str = "paper",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the layer with the initial values that `init` names."""
        check_sizes(in_features=in_features, out_features=out_features)
        check_bias(bias)
        kind = check_noise_options(noise, sigma0, init)
        # nn.Linear's own constructor ends with a call of reset_parameters, which waits for σ.
        super().__init__(in_features, out_features, bias=bias, device=device, dtype=dtype)
        self._become_noisy(kind, sigma0, init)
        self.reset_parameters()

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        *,
        noise: str = "factorised",
        sigma0: float | None = None,
        init: str = "paper",
    ) -> NoisyLinear:
        """Make a noisy layer whose means are the very Parameters of `linear`; σ is new.

        σ always requires grad, also where the means are frozen. Raises TypeError for what is no
        `nn.Linear`, and ValueError for an unknown option or a layer that cannot become noisy.
        """
        kind = check_noise_options(noise, sigma0, init)
        layer = cls.__new__(cls)
        take_over(layer, linear, nn.Linear)
        layer._become_noisy(kind, sigma0, init)
        layer.reset_sigmas()
        return layer

    def noise_spec(self) -> NoiseSpec:
        """Say what one draw of this layer consists of."""
        return NoiseSpec(self.noise, self.in_features, self.out_features, self.bias is not None)

    def noise_to_keep(self, noise: LayerNoise) -> LayerNoise:
        """Build ε_w of a small layer once for all forwards.

        On the CPU, where calls are what costs; a graph on a GPU must read the draw at each replay.
        """
        if (
            isinstance(noise, FactorisedNoise)
            and noise.rows is None
            and noise.input.device.type == "cpu"
            and self.weight.numel() <= forms.SMALL_WEIGHT
        ):
            return replace(noise, weight=noise.weight_noise())
        return noise

    def _fresh(self, leading: Sequence[int]) -> LayerNoise:
        if self.noise == "independent" and not leading:
            drawn = fused.draw_by_counter(self.noise_reference, bias=self.bias is not None)
            if drawn is not None:
                return drawn
        return super()._fresh(leading)

    def fresh_rows(self, leading: Sequence[int]) -> LinearNoise:
        """Draw for each row of an input of shape (*leading, p).

        Independent noise is drawn where it is seen, at the outputs: q normals a row for pq + q.
        """
        reference = self.noise_reference
        if self.noise == "independent":
            shape = (*leading, self.out_features)
            return OutputNoise(standard_normals(shape, reference.device, reference.dtype, None))
        return cast(LinearNoise, super().fresh_rows(leading))

    def reset_parameters(self) -> None:
        """Set μ and σ to new initial values."""
        if "weight_sigma" not in self._parameters:
            return
        initial.initialise_means(
            self.weight, self.bias, noise=self.noise, init=self.init, inputs=self.in_features
        )
        self.reset_sigmas()

    def reset_sigmas(self) -> None:
        """Set σ back to its initial value; the means stay."""
        initial.initialise_sigmas(
            self.weight_sigma,
            self.bias_sigma,
            noise=self.noise,
            init=self.init,
            sigma0=self.sigma0,
            inputs=self.in_features,
            outputs=self.out_features,
        )

    def effective_weight(self) -> tuple[Tensor, Tensor | None]:
        """Give the (weight, bias) that the draw in force makes.

        Shapes (q, p) and (q,), or (rows, q, p) and (rows, q) with one draw per row. A fresh layer
        makes a new draw for this call; with the noise off these are the means themselves.
        """
        noise = cast("LinearNoise | None", self.noise_in_force())
        if noise is None:
            return self.weight, self.bias
        assert not isinstance(noise, OutputNoise), "no input was named"
        return noisy_parameters(self.weight, self.bias, self.weight_sigma, self.bias_sigma, noise)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer to (…, p), or (…, rows, p) with one draw per row; gives (…, q)."""
        noise = cast("LinearNoise | None", self.noise_in_force(input.shape[:-1]))
        if noise is None:
            return functional.linear(input, self.weight, self.bias)
        return noisy_linear(
            input, self.weight, self.bias, self.weight_sigma, self.bias_sigma, noise
        )

    def extra_repr(self) -> str:
        """Say sizes, kind of noise and its state."""
        return f"{super().extra_repr()}, noise={self.noise!r} ({self.describe_noise()})"
