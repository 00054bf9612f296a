"""`torch.func` and forward derivatives: functional calls, ensembles, jvp, Jacobians, Hessians."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import (
    functional_call,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    stack_module_state,
    vmap,
)

import noisynet
from noisynet.layers.noise import NoiseName

from .references import STATES, new_net, new_tensors, put_into

# PyTorch's own forward derivatives are loaded with it.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*deprecated:DeprecationWarning")

P, Q, ROWS = 3, 2, 4
NewForm = Callable[..., Callable[..., Tensor]]


@pytest.fixture
def double_net(noise: NoiseName) -> nn.Sequential:
    return new_net(noise, torch.float64)


def parameters_of(net: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in net.named_parameters()}


@pytest.mark.parametrize("state", STATES)
def test_grad_of_a_functional_call_is_that_of_backward(double_net: Any, state: str) -> None:
    net, x = double_net, torch.randn(40, 3, dtype=torch.float64)
    put_into(net, state, 40)

    def loss(values: dict[str, Tensor]) -> Tensor:
        return functional_call(net, values, (x,)).square().mean()

    torch.manual_seed(1)
    gradients, value = grad_and_value(loss)(parameters_of(net))
    torch.manual_seed(1)
    expected = net(x).square().mean()
    expected.backward()
    torch.testing.assert_close(value, expected)
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad)


@pytest.mark.parametrize("per_row", [False, True])
def test_an_ensemble_of_fresh_members_draws_as_vmap_is_told(net: Any, per_row: bool) -> None:
    noisynet.release(net, per_row=per_row)
    alike, _ = stack_module_state([copy.deepcopy(net) for _ in range(3)])
    x = torch.randn(3).expand(5, 3)

    def call(values: dict[str, Tensor]) -> Tensor:
        return functional_call(net, values, (x,))

    different = vmap(call, randomness="different")(alike)
    # One draw for each member; within a member one for the batch, or one for each row.
    assert len({tuple(y.tolist()) for y in different[:, 0].detach()}) == 3
    rows = different[0].detach()
    assert torch.allclose(rows, rows[:1].expand_as(rows)) != per_row
    same = vmap(call, randomness="same")(alike)
    torch.testing.assert_close(same[0].expand_as(same), same)
    with pytest.raises(RuntimeError, match="random operation"):
        vmap(call)(alike)


def test_members_that_draw_apart_have_the_gradients_of_their_draws(noise: NoiseName) -> None:
    """With x = 1 the gradient of σ_w is ε_w: each member's output must be what its own makes."""
    layer = noisynet.NoisyLinear(P, Q, noise=noise, dtype=torch.float64)
    stacked, _ = stack_module_state([copy.deepcopy(layer) for _ in range(4)])
    x = torch.eye(P, dtype=torch.float64)

    def total(values: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        y = functional_call(layer, values, (x,))
        return y.sum(), y

    given = {name: value.detach() for name, value in stacked.items()}
    gradients, outputs = vmap(grad(total, has_aux=True), randomness="different")(given)
    assert gradients["weight_sigma"].unique().numel() == 4 * P * Q
    for number, y in enumerate(outputs):
        weight = layer.weight + layer.weight_sigma * gradients["weight_sigma"][number]
        bias = layer.bias + layer.bias_sigma * gradients["bias_sigma"][number] / P
        torch.testing.assert_close(y, nn.functional.linear(x, weight, bias))


# All five arguments move together, or only one of them.
MOVED = [pytest.param(None, id="all"), *range(5)]


@pytest.mark.parametrize("moved", MOVED)
def test_jvp_is_the_slope_by_differences(new_form: NewForm, moved: int | None) -> None:
    form, values = new_form(P, Q, ROWS), new_tensors(P, Q, ROWS)
    tangents = tuple(
        torch.randn_like(value) if moved in (None, number) else torch.zeros_like(value)
        for number, value in enumerate(values)
    )

    def at(step: float) -> Tensor:
        moved_to = (value + step * tangent for value, tangent in zip(values, tangents, strict=True))
        return form(*moved_to)

    # Central differences: an error of h² ≈ 1e-10 and of rounding, 1e-16 / h ≈ 1e-11.
    by_differences = (at(1e-5) - at(-1e-5)) / 2e-5
    by_func = jvp(form, values, tangents)[1]
    torch.testing.assert_close(by_func, by_differences, rtol=1e-6, atol=1e-6)

    with forward_ad.dual_level():
        duals = (
            forward_ad.make_dual(value, tangent) if moved in (None, number) else value
            for number, (value, tangent) in enumerate(zip(values, tangents, strict=True))
        )
        by_duals = forward_ad.unpack_dual(form(*duals)).tangent
    torch.testing.assert_close(by_duals, by_func)


@pytest.mark.parametrize("state", STATES)
def test_forward_derivative_of_a_net(double_net: Any, state: str) -> None:
    net, x = double_net, torch.randn(40, 3, dtype=torch.float64)
    put_into(net, state, 40)
    direction = torch.randn_like(x)
    torch.manual_seed(2)
    forward = jvp(net, (x,), (direction,))[1]
    torch.manual_seed(2)
    leaf = x.clone().requires_grad_()
    y = net(leaf)
    cotangent = torch.randn_like(y)
    (backward,) = torch.autograd.grad(y, leaf, cotangent)
    # ⟨u, J v⟩ = ⟨Jᵀ u, v⟩
    torch.testing.assert_close((cotangent * forward).sum(), (backward * direction).sum())


def test_jacobians_agree_in_every_direction(new_form: NewForm) -> None:
    form, values = new_form(P, Q, ROWS), new_tensors(P, Q, ROWS)
    everything = tuple(range(5))
    by_backward = torch.autograd.functional.jacobian(form, values)
    for others in (
        jacrev(form, argnums=everything)(*values),
        jacfwd(form, argnums=everything)(*values),
        torch.autograd.functional.jacobian(form, values, vectorize=True, strategy="forward-mode"),
    ):
        for a, b in zip(others, by_backward, strict=True):
            torch.testing.assert_close(a, b)


def test_hessians_agree_with_those_of_two_backwards(new_form: NewForm) -> None:
    form, values = new_form(P, Q, ROWS), new_tensors(P, Q, ROWS)

    def loss(*given: Tensor) -> Tensor:
        return form(*given).pow(3).sum()

    everything = tuple(range(5))
    by_func = hessian(loss, argnums=everything)(*values)
    by_backward = torch.autograd.functional.hessian(loss, values)
    for row, expected in zip(by_func, by_backward, strict=True):
        for a, b in zip(row, expected, strict=True):
            torch.testing.assert_close(a, b)


def test_a_hessian_of_fresh_noise_is_an_error_that_says_randomness() -> None:
    layer, x = noisynet.NoisyLinear(P, 1), torch.randn(P)
    with pytest.raises(RuntimeError, match="randomness"):
        hessian(lambda given: layer(given).square().sum())(x)
    noisynet.hold(layer)
    found = hessian(lambda given: layer(given).square().sum())(x)
    weight, _ = layer.effective_weight()
    torch.testing.assert_close(found, 2 * weight.mT @ weight)
