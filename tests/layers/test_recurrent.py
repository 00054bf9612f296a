"""Noisy cells: against the equations one value at a time, and against torch's own cells."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import noisynet
from noisynet.layers import CellNoise, NoisyGRUCell, NoisyLSTMCell, OutputNoise
from noisynet.layers.noise import NoiseName

from .references import slow_noisy_linear

CELLS = [NoisyLSTMCell, NoisyGRUCell]


@pytest.fixture(params=CELLS, ids=["lstm", "gru"])
def cell(request: pytest.FixtureRequest, noise: NoiseName) -> Any:
    return request.param(3, 2, noise=noise, sigma0=0.5)


def random_state(cell: nn.Module, *rows: int, dtype: torch.dtype | None = None) -> Any:
    """A state of the cell: a tensor, or two of them."""
    first, second = torch.randn(2, *rows, 2, dtype=dtype)
    return (first, second) if isinstance(cell, nn.LSTMCell) else first


def as_one(state: Any) -> Tensor:
    return torch.stack(state) if isinstance(state, tuple) else state


def pick(state: Any, index: Any) -> Any:
    return tuple(part[index] for part in state) if isinstance(state, tuple) else state[index]


def step_by_loops(cell: Any, noise: CellNoise, input: Tensor, state: Any) -> Tensor:
    """The equations of torch's documentation, gate by gate, each from eq. 9 by loops."""
    n = 2
    of_input = slow_noisy_linear(
        input, cell.weight_ih, cell.bias_ih, cell.weight_ih_sigma, cell.bias_ih_sigma, noise.input
    )
    h = state[0] if isinstance(state, tuple) else state
    of_state = slow_noisy_linear(
        h, cell.weight_hh, cell.bias_hh, cell.weight_hh_sigma, cell.bias_hh_sigma, noise.hidden
    )
    parts = [slice(k * n, (k + 1) * n) for k in range(cell.gates)]
    if isinstance(cell, nn.LSTMCell):
        i, f, g, o = (of_input[..., part] + of_state[..., part] for part in parts)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.stack([torch.sigmoid(o) * torch.tanh(c), c])
    r, z = (torch.sigmoid(of_input[..., part] + of_state[..., part]) for part in parts[:2])
    new = torch.tanh(of_input[..., parts[2]] + r * of_state[..., parts[2]])
    return (1 - z) * new + z * h


@pytest.mark.parametrize("rows", [None, 4])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", CELLS)
def test_forward_and_gradients_are_those_of_the_equations(
    kind: Any, noise: NoiseName, bias: bool, rows: int | None
) -> None:
    cell = kind(3, 2, bias, noise=noise, sigma0=0.5, dtype=torch.float64)
    noisynet.hold(cell, rows=rows)
    held: Any = noisynet.held(cell)
    drawn = held.layer("")
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    state = random_state(cell, 4, dtype=torch.float64)
    leaves = [x, *cell.parameters()]
    fast = as_one(cell(x, state))
    slow = step_by_loops(cell, drawn, x, state)
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)
    for got, expected in zip(
        torch.autograd.grad(fast.square().sum(), leaves),
        torch.autograd.grad(slow.square().sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_an_lstm_of_one_unit_by_hand() -> None:
    cell = NoisyLSTMCell(1, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.tensor([[0.0], [1.0], [0.0], [2.0]]))
        cell.weight_ih_sigma.copy_(torch.tensor([[1.0], [0.5], [1.0], [0.0]]))
        cell.weight_hh.zero_()
        cell.weight_hh_sigma.zero_()
    # f(ε_i) = 2 and f(ε_j) = (1, −1, 0.5, 3) for the input: ε = (2, −2, 1, 6), so that the gates
    # i, f, g, o get 2, 1 − 1 = 0, 1 and 2 from an input of 1. The state's noise meets σ = 0.
    flat = torch.tensor([2.0, 1.0, -1.0, 0.5, 3.0, *[1.0] * 5], dtype=torch.float64)
    noisynet.hold(cell, drawn=noisynet.Draw((flat,), noisynet.draw(cell).slots))
    one = torch.ones(1, dtype=torch.float64)
    h, c = (part.detach() for part in cell(one, (one, one * 3)))

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    expected = sigmoid(0) * 3 + sigmoid(2) * math.tanh(1)
    assert float(c) == pytest.approx(expected)
    assert float(h) == pytest.approx(sigmoid(2) * math.tanh(expected))


def test_a_gru_of_one_unit_by_hand() -> None:
    cell = NoisyGRUCell(1, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        cell.weight_ih.zero_()
        cell.weight_ih_sigma.zero_()
        cell.weight_hh.copy_(torch.tensor([[1.0], [0.0], [0.0]]))
        cell.weight_hh_sigma.copy_(torch.tensor([[0.5], [1.0], [0.25]]))
    # ε = 2 · (1, 0.5, −2) = (2, 1, −4) for the state: its weights are 2, 1 and −1.
    flat = torch.tensor([*[1.0] * 4, 2.0, 1.0, 0.5, -2.0], dtype=torch.float64)
    noisynet.hold(cell, drawn=noisynet.Draw((flat,), noisynet.draw(cell).slots))
    h = cell(torch.ones(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)).detach()

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    new = math.tanh(-sigmoid(2))
    assert float(h) == pytest.approx((1 - sigmoid(1)) * new + sigmoid(1))


def test_the_two_weights_draw_apart_with_the_moments_of_noise(noise: NoiseName) -> None:
    cell = NoisyLSTMCell(2, 2, noise=noise)
    drawn: Any = noisynet.draw(cell, rows=4000).layer("")
    assert isinstance(drawn, CellNoise)
    assert drawn.rows == (4000,)
    expected = 2 / math.pi if noise == "factorised" else 1.0
    parts: tuple[Any, ...] = drawn.parts
    both = [part.weight_noise() for part in parts]
    for epsilon in both:
        assert epsilon.shape == (4000, 8, 2)
        # The variance of ε² is at most 2: five standard errors of 4000 values.
        assert float(epsilon.square().mean()) == pytest.approx(expected, abs=0.11)
    assert float((both[0] * both[1]).mean()) == pytest.approx(0.0, abs=5 / math.sqrt(4000))


def test_fresh_independent_noise_per_row_is_drawn_at_the_outputs(cell: Any) -> None:
    noisynet.release(cell, per_row=True)
    drawn = cell.noise_in_force(torch.empty(6, cell.input_size))
    assert isinstance(drawn.input, OutputNoise) == (cell.noise == "independent")
    assert drawn.rows == drawn.hidden.rows == (6,)


def test_fresh_independent_noise_per_row_has_the_variance_of_the_weights() -> None:
    # With μ = 0, σ = 1 and no bias, the update gate of a GRU is σ(ε_ih x + ε_hh h): with x = 2
    # and h = 1 its argument is N(0, 5).
    cell = NoisyGRUCell(1, 1, bias=False, noise="independent")
    with torch.no_grad():
        for name, value in cell.named_parameters():
            value.fill_(1.0 if name.endswith("sigma") else 0.0)
        for weight_sigma in (cell.weight_ih_sigma, cell.weight_hh_sigma):
            weight_sigma[[0, 2]] = 0.0  # The new state is 0, so that h' = z h.
    noisynet.release(cell, per_row=True)
    z = cell(torch.full((4000, 1), 2.0), torch.ones(4000, 1)).detach()
    # Five standard errors of the variance of 4000 normals: 5 · 5 · √(2/4000).
    assert float(z.logit().var()) == pytest.approx(5.0, abs=0.56)


def test_errors_name_what_came_and_what_fits(cell: Any) -> None:
    state = random_state(cell, 4)
    for context in (noisynet.mean_weights(cell), torch.no_grad()):
        with context:
            with pytest.raises(ValueError, match=r"got shape \(4, 5\), expected \(…, 3\): 3 feat"):
                cell(torch.randn(4, 5), state)
            with pytest.raises(ValueError, match=r"got shape \(5, 4, 3\), .* one step at a time"):
                cell(torch.randn(5, 4, 3), state)
            # A state of one row would go with any batch without a word.
            with pytest.raises(ValueError, match=r"state: got shape \(1, 2\), expected \(4, 2\)"):
                cell(torch.randn(4, 3), pick(state, slice(0, 1)))
    noisynet.hold(cell, rows=4)
    with pytest.raises(ValueError, match=r"got shape \(2, 3\), expected \(…, 4, 3\)"):
        cell(torch.randn(2, 3))
    with pytest.raises(ValueError, match="hidden_size: got 0, expected at least 1"):
        type(cell)(3, 0)


def test_a_state_of_another_kind_is_an_error() -> None:
    x, h = torch.zeros(4, 3), torch.zeros(4, 2)
    states: tuple[Any, ...] = (h, (h,), (h, h, h))
    for state, got in zip(states, ("one tensor", "1 of them", "3 of them"), strict=True):
        with pytest.raises(ValueError, match=rf"^state: got {got}, expected \(h, c\)$"):
            noisynet.NoisyLSTMCell(3, 2)(x, state)
    pair: Any = (h, h)
    with pytest.raises(ValueError, match=r"^state: got tuple, expected a tensor$"):
        noisynet.NoisyGRUCell(3, 2)(x, pair)
