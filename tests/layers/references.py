"""The slow, obvious reference of a noisy layer, and small networks and tensors to try it on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import noisynet
from noisynet.layers import FactorisedNoise, LayerNoise
from noisynet.layers.noise import NoiseName


def noise_of_weight(noise: Any, row: int | None, j: int, i: int, group: int = 0) -> Tensor:
    """ε_w of output j and input i of its group, as docs say: f(ε_j) f(ε_i), or as drawn."""
    if isinstance(noise, FactorisedNoise):
        outputs = noise.output if row is None else noise.output[row]
        inputs = noise.input if row is None else noise.input[row]
        return outputs[j] * inputs[group * (len(inputs) // noise.groups) + i]
    return noise.weight[j, i] if row is None else noise.weight[row, j, i]


def noise_of_bias(noise: Any, row: int | None, j: int) -> Tensor:
    """ε_b of output j: f(ε_j), or as drawn."""
    drawn = noise.output if isinstance(noise, FactorisedNoise) else noise.bias
    assert drawn is not None
    return drawn[j] if row is None else drawn[row, j]


def slow_noisy_linear(
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


def assert_same(
    fast: Callable[..., Tensor],
    slow: Callable[..., Tensor],
    tensors: list[Any],
    *more: Any,
    **how: Any,
) -> None:
    """Compare the outputs of two functions, and their gradients for all tensors that are there."""
    results, cotangent = [], None
    for function in (fast, slow):
        leaves = [None if t is None else t.clone().requires_grad_() for t in tensors]
        output = function(*leaves, *more, **how)
        cotangent = torch.randn_like(output) if cotangent is None else cotangent
        wanted = [leaf for leaf in leaves if leaf is not None]
        results.append([output, *torch.autograd.grad((output * cotangent).sum(), wanted)])
    # Sums of at most some hundred products of order 1: rounding stays far below 1e-12.
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def new_net(noise: NoiseName = "factorised", dtype: torch.dtype | None = None) -> nn.Sequential:
    """A network of two noisy layers of equal size and a plain one in front."""
    return nn.Sequential(
        nn.Linear(3, 4, dtype=dtype),
        nn.ReLU(),
        noisynet.NoisyLinear(4, 4, noise=noise, dtype=dtype),
        nn.ReLU(),
        noisynet.NoisyLinear(4, 4, noise=noise, dtype=dtype),
    )


class Transposed(nn.Module):
    """A plain layer that keeps its weight as (inputs, outputs), as GPT-2's does."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = nn.Parameter(torch.randn(nx, nf, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(nf, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


STATES = ["fresh", "per row", "held", "rows", "static"]


def put_into(net: nn.Module, state: str, rows: int) -> None:
    if state in ("fresh", "per row"):
        noisynet.release(net, per_row=state == "per row")
    else:
        noisynet.hold(net, rows=rows if state == "rows" else None, static=state == "static")


def new_tensors(
    inputs: int, outputs: int, rows: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, ...]:
    """Random (x, μ, μ_b, σ, σ_b)."""
    shapes = ((rows, inputs), (outputs, inputs), (outputs,), (outputs, inputs), (outputs,))
    return tuple(torch.randn(shape, dtype=dtype) for shape in shapes)
