"""The noisy linear layer."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import initial
from .draw import NOISE_KINDS, NoiseKind, NoiseSpec
from .functional import noisy_linear, noisy_parameters
from .state import NoisyLayer, new_state


def check_noise_options(noise: str, sigma0: float | None, init: str) -> NoiseKind:
    """Return the kind of noise; raises ValueError for an unknown kind, σ0 or preset."""
    if noise not in NOISE_KINDS:
        raise ValueError(f"noise: got {noise!r}, expected one of {', '.join(NOISE_KINDS)}")
    initial.check_sigma0(sigma0)
    initial.check_init(init)
    return cast(NoiseKind, noise)


class NoisyLinear(NoisyLayer, nn.Linear):
    """Apply y = (μ_w + σ_w ⊙ ε_w) x + μ_b + σ_b ⊙ ε_b (arXiv 1706.10295, eq. 9).

    It is an `nn.Linear`: `weight` (q, p) and `bias` (q,) are the means μ; `weight_sigma` and
    `bias_sigma`, of the same shapes, are learned beside them. A plain Linear's checkpoint loads
    with `strict=False`; σ keeps its initial value.

    `noise` is "factorised" (p + q normals a draw) or "independent" (pq + q); `sigma0=None` is the
    paper's value, 0.5 (σ = 0.5/√p) or 0.017 (σ itself); `init` names where the initial values come
    from. The noise has three states of its own, and none of them depends on `train()` or
    `eval()`: a new layer is fresh (a new draw at every forward); see `noisynet.hold`,
    `noisynet.resample`, `noisynet.release`, `noisynet.using`, `noisynet.mean_weights`.

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
        for name, value in (("in_features", in_features), ("out_features", out_features)):
            if value < 1:
                raise ValueError(f"{name}: got {value}, expected at least 1")
        kind = check_noise_options(noise, sigma0, init)
        # nn.Linear's own constructor ends with a call of reset_parameters, which waits for σ.
        super().__init__(in_features, out_features, bias=bias, device=device, dtype=dtype)
        self._become_noisy(kind, sigma0, init)
        self.reset_parameters()

    def _become_noisy(self, noise: NoiseKind, sigma0: float | None, init: str) -> None:
        """Add σ (not yet initialised) and the noise's state beside the means."""
        new_state(self)
        self.noise: NoiseKind = noise
        self.sigma0 = sigma0
        self.init = init
        self.weight_sigma = nn.Parameter(torch.empty_like(self.weight))
        if self.bias is None:
            self.register_parameter("bias_sigma", None)
        else:
            self.bias_sigma = nn.Parameter(torch.empty_like(self.bias))

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

        σ always requires grad, also where the means are frozen.
        """
        kind = check_noise_options(noise, sigma0, init)
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer.in_features, layer.out_features = linear.in_features, linear.out_features
        layer.weight = linear.weight
        layer.bias = linear.bias
        layer._become_noisy(kind, sigma0, init)
        layer.reset_sigmas()
        layer.train(linear.training)
        return layer

    def noise_spec(self) -> NoiseSpec:
        """Say what one draw of this layer consists of."""
        return NoiseSpec(self.noise, self.in_features, self.out_features, self.bias is not None)

    def reset_parameters(self) -> None:
        """Set μ and σ to new initial values."""
        if "weight_sigma" not in self._parameters:
            return
        initial.initialise_means(self.weight, self.bias, self.noise, self.in_features, self.init)
        self.reset_sigmas()

    def reset_sigmas(self) -> None:
        """Set σ back to its initial value; the means stay."""
        initial.initialise_sigmas(
            self.weight_sigma, self.bias_sigma, self.noise, self.sigma0, self.in_features
        )

    def effective_weight(self) -> tuple[Tensor, Tensor | None]:
        """Give the (weight, bias) that the draw in force makes.

        Shapes (q, p) and (q,), or (rows, q, p) and (rows, q) with one draw per row. A fresh layer
        makes a new draw for this call; with the noise off these are the means themselves.
        """
        noise = self.noise_in_force()
        if noise is None:
            return self.weight, self.bias
        return noisy_parameters(self.weight, self.bias, self.weight_sigma, self.bias_sigma, noise)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer to (…, p), or (…, rows, p) with one draw per row; gives (…, q)."""
        noise = self.noise_in_force(input.shape[:-1])
        if noise is None:
            return functional.linear(input, self.weight, self.bias)
        return noisy_linear(
            input, self.weight, self.bias, self.weight_sigma, self.bias_sigma, noise
        )

    def extra_repr(self) -> str:
        """Say sizes, kind of noise and its state."""
        return f"{super().extra_repr()}, noise={self.noise!r} ({self.describe_noise()})"
