"""Lower precision: autocast, and layers that are of another dtype altogether, in every form."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import noisynet

from .references import new_net, new_tensors

P, Q, ROWS = 64, 32, 40
NAMES = ("x", "weight", "bias", "weight_sigma", "bias_sigma")
# Bits of the significand: a relative error of 2⁻ᵇⁱᵗˢ⁻¹ per rounding. A term passes about four
# roundings, and the errors of a sum stay below a small multiple of it.
TOLERANCE = {torch.bfloat16: 2.0**-6, torch.float16: 2.0**-9, torch.float64: 2.0**-45}


def differentiate(
    form: Callable[..., Tensor], tensors: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    given = tuple(tensor.detach().clone().requires_grad_() for tensor in tensors)
    y = form(*given)
    # Values of order 1, which even float16 can square and sum.
    return y, torch.autograd.grad(y.double().square().mean() * Q, given)


def error(got: Tensor, expected: Tensor) -> float:
    difference = (got.double() - expected.double()).detach()
    return float(difference.norm() / expected.detach().double().norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_of_every_form(new_form: Any, dtype: torch.dtype) -> None:
    form = new_form(P, Q, ROWS, torch.float32)
    tensors = new_tensors(P, Q, ROWS, torch.float32)

    def under_autocast(*given: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype):
            return form(*given)

    exact, exact_gradients = differentiate(form, tensors)
    fast, fast_gradients = differentiate(under_autocast, tensors)
    assert fast.dtype == dtype
    assert 0 < error(fast, exact) < TOLERANCE[dtype]
    for name, got, expected in zip(NAMES, fast_gradients, exact_gradients, strict=True):
        assert got.dtype == torch.float32, name
        assert error(got, expected) < TOLERANCE[dtype], name


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_form_in_another_dtype(new_form: Any, dtype: torch.dtype) -> None:
    form, tensors = new_form(P, Q, ROWS, dtype), new_tensors(P, Q, ROWS, dtype)
    in_double = tuple(tensor.double() for tensor in tensors)
    exact, exact_gradients = differentiate(form.to(torch.float64), in_double)
    y, gradients = differentiate(form, tensors)
    assert y.dtype == dtype
    assert error(y, exact) < TOLERANCE[dtype]
    for name, got, expected in zip(NAMES, gradients, exact_gradients, strict=True):
        assert got.dtype == dtype, name
        assert error(got, expected) < TOLERANCE[dtype], name


@pytest.mark.parametrize("state", ["fresh", "per row", "held", "rows", "mean"])
@pytest.mark.parametrize("rows", [8, ROWS])
def test_a_net_learns_under_autocast(noise: str, state: str, rows: int) -> None:
    """Between layers the activations are bfloat16 already; σ and μ stay float32."""
    net, x = new_net(noise), torch.randn(rows, 3)
    if state in ("held", "rows"):
        noisynet.hold(net, rows=rows if state == "rows" else None)
    else:
        noisynet.release(net, per_row=state == "per row")

    def run(autocast: bool) -> tuple[Tensor, list[Tensor]]:
        torch.manual_seed(8)
        parameters = dict(net.named_parameters())
        if state == "mean":
            parameters = {name: p for name, p in parameters.items() if "sigma" not in name}
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            if state == "mean":
                with noisynet.mean_weights(net):
                    y = net(x)
            else:
                y = net(x)
        loss = y.float().square().mean()
        return y, list(torch.autograd.grad(loss, list(parameters.values())))

    exact, exact_gradients = run(autocast=False)
    fast, fast_gradients = run(autocast=True)
    assert fast.dtype == torch.bfloat16
    # Three layers deep, and a ReLU may open for one and not for the other: twice as much.
    assert error(fast, exact) < 2 * TOLERANCE[torch.bfloat16]
    for got, expected in zip(fast_gradients, exact_gradients, strict=True):
        assert got.dtype == torch.float32
        assert error(got, expected) < 4 * TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize("autocast", [True, False])
def test_noise_at_the_outputs_does_not_overflow_float16(*, autocast: bool) -> None:
    layer = noisynet.NoisyLinear(8, 4, noise="independent", bias=False)
    with torch.no_grad():
        layer.weight_sigma.fill_(1e-4)
    x = torch.full((64, 8), 400.0)  # x² is beyond float16, and so is σ², on the other side
    noisynet.release(layer, per_row=True)
    if not autocast:
        layer, x = layer.half(), x.half()
    with torch.autocast("cpu", torch.float16, enabled=autocast):
        y = layer(x)
        with noisynet.mean_weights(layer):
            mean = layer(x)
    deviation = (y.float() - mean.float()).std().item()
    assert deviation == pytest.approx(1e-4 * 400 * 8**0.5, rel=0.5)
    (gradient,) = torch.autograd.grad(y.float().square().mean(), [layer.weight_sigma])
    assert bool(gradient.isfinite().all())
    assert bool(gradient.any())


@pytest.mark.parametrize("state", ["held", "static", "using"])
def test_weights_of_another_dtype_take_a_draw_with_them(state: str) -> None:
    """As in FSDP's mixed precision, a forward may bring copies of the weights in bfloat16."""
    net = noisynet.noisify(nn.Sequential(nn.Linear(P, 16), nn.ReLU(), nn.Linear(16, Q)))
    drawn = noisynet.draw(net)
    low = {name: value.bfloat16() for name, value in net.named_parameters()}
    x = torch.randn(ROWS, P)
    with contextlib.ExitStack() as noise:
        if state == "using":
            noise.enter_context(noisynet.using(net, drawn))
        else:
            noisynet.hold(net, drawn=drawn, static=state == "static")
        y = torch.func.functional_call(net, low, (x.bfloat16(),))
        expected = net(x)
    assert y.dtype == torch.bfloat16
    assert error(y, expected) < 0.05
