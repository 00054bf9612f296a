"""The slow, obvious reference of a noisy layer, and small networks to try the noise on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import noisynet
from noisynet.layers import FactorisedNoise, LayerNoise, OutputNoise
from noisynet.layers.functional import reference_linear
from noisynet.layers.kernels import factorised, independent
from noisynet.layers.noise import NoiseKind, NoiseName, NoiseSpec
from noisynet.layers.weights import Weights


def noise_of_weight(noise: Any, row: int | None, j: int, i: int) -> Tensor:
    """ε_w of output j and input i, as the table in docs says it: f(ε_j) f(ε_i), or as drawn."""
    if isinstance(noise, FactorisedNoise):
        outputs = noise.output if row is None else noise.output[row]
        inputs = noise.input if row is None else noise.input[row]
        return outputs[j] * inputs[i]
    return noise.weight[j, i] if row is None else noise.weight[row, j, i]


def noise_of_bias(noise: Any, row: int | None, j: int) -> Tensor:
    """ε_b of output j: f(ε_j), or as drawn."""
    drawn = noise.output if isinstance(noise, FactorisedNoise) else noise.bias
    assert drawn is not None
    return drawn[j] if row is None else drawn[row, j]


def noisy_linear_by_loops(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    noise: LayerNoise,
) -> Tensor:
    """Equation 9 of arXiv 1706.10295, one scalar at a time, in float64."""
    outputs, inputs = weight.shape
    rows = None if noise.rows is None else noise.rows[0]
    cells = []
    for number, x in enumerate(input.double().reshape(-1, inputs)):
        row = None if rows is None else number % rows
        for j in range(outputs):
            y = torch.zeros((), dtype=torch.float64)
            if bias is not None and bias_sigma is not None:
                y = bias[j].double() + bias_sigma[j].double() * noise_of_bias(noise, row, j)
            for i in range(inputs):
                noise_ji = noise_of_weight(noise, row, j, i).double()
                y = y + (weight[j, i].double() + weight_sigma[j, i].double() * noise_ji) * x[i]
            cells.append(y)
    if not cells:
        return (input.double() @ weight.double().mT) * 0.0
    return torch.stack(cells).reshape(*input.shape[:-1], outputs)


@pytest.fixture(scope="session")
def slow_noisy_linear() -> Callable[..., Tensor]:
    return noisy_linear_by_loops


def two_layers(noise: NoiseName = "factorised", dtype: torch.dtype | None = None) -> nn.Sequential:
    """A network of two noisy layers of equal size and a plain one in front."""
    return nn.Sequential(
        nn.Linear(3, 4, dtype=dtype),
        nn.ReLU(),
        noisynet.NoisyLinear(4, 4, noise=noise, dtype=dtype),
        nn.ReLU(),
        noisynet.NoisyLinear(4, 4, noise=noise, dtype=dtype),
    )


@pytest.fixture(scope="session")
def new_net() -> Callable[..., nn.Sequential]:
    return two_layers


@pytest.fixture(params=["factorised", "independent"])
def noise(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def net(noise: NoiseName) -> nn.Sequential:
    return two_layers(noise)


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


def linear_tensors(
    inputs: int, outputs: int, rows: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, ...]:
    """Random (x, μ, μ_b, σ, σ_b)."""
    shapes = ((rows, inputs), (outputs, inputs), (outputs,), (outputs, inputs), (outputs,))
    return tuple(torch.randn(shape, dtype=dtype) for shape in shapes)


@pytest.fixture(scope="session")
def new_tensors() -> Callable[..., tuple[Tensor, ...]]:
    return linear_tensors
