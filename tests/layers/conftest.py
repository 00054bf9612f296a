"""Kinds of noise, networks and forms of a linear layer that many tests go through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from noisynet.layers import OutputNoise
from noisynet.layers.functional import reference_linear
from noisynet.layers.kernels import factorised, independent
from noisynet.layers.noise import NoiseKind, NoiseName, NoiseSpec
from noisynet.layers.weights import Weights

from .references import new_net


@pytest.fixture(params=["factorised", "independent"])
def noise(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def net(noise: NoiseName) -> nn.Sequential:
    return new_net(noise)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(1706_10295)


# Every way in which a linear layer is computed: (function, kind of noise, one draw per row).
LINEAR_FORMS: dict[str, tuple[Callable[..., Tensor], NoiseKind, bool]] = {
    "as written": (reference_linear, "factorised", False),
    "from scratch": (factorised.from_scratch, "factorised", False),
    "two products": (factorised.two_products, "factorised", False),
    "two products, rows": (factorised.two_products, "factorised", True),
    "independent": (reference_linear, "independent", False),
    "independent, rows": (reference_linear, "independent", True),
    "at outputs": (independent.at_outputs, "independent", True),
}


@dataclass(frozen=True)
class LinearForm:
    """One way to compute a linear layer, with its noise drawn: call it with (x, μ, μ_b, σ, σ_b)."""

    function: Callable[..., Tensor]
    noise: Any

    def __call__(self, *tensors: Any) -> Tensor:
        input, *weights = tensors
        return self.function(input, Weights(*weights), self.noise)

    def to(self, dtype: torch.dtype) -> LinearForm:
        """The same with its noise in another dtype."""
        values = {field.name: getattr(self.noise, field.name) for field in fields(self.noise)}
        moved = {name: v.to(dtype) for name, v in values.items() if isinstance(v, Tensor)}
        return replace(self, noise=replace(self.noise, **moved))


@pytest.fixture(params=LINEAR_FORMS)
def new_form(request: pytest.FixtureRequest) -> Callable[..., LinearForm]:
    """Draws noise for rows of p inputs and q outputs; each of its calls gives a form of its own."""
    function, kind, per_row = LINEAR_FORMS[request.param]

    def build(
        inputs: int, outputs: int, rows: int, dtype: torch.dtype = torch.float64
    ) -> LinearForm:
        if function is independent.at_outputs:
            return LinearForm(function, OutputNoise(torch.randn(rows, outputs, dtype=dtype)))
        spec = NoiseSpec(kind, inputs, outputs, bias=True)
        leading = (rows,) if per_row else ()
        flat = spec.draw(leading, device=torch.device("cpu"), dtype=dtype)
        return LinearForm(function, spec.unflatten(flat))

    return build
