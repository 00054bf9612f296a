"""What a forward used is what its backward uses, whatever is drawn in between."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import noisynet
from noisynet.layers import Draw

STATES = [
    pytest.param(rows, static, id=f"{'rows' if rows else 'shared'}-{'static' if static else ''}")
    for rows in (None, 6)
    for static in (False, True)
]


def gradients(net: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(net.parameters()), retain_graph=True))


def gradients_under(net: nn.Module, drawn: Draw, x: Tensor) -> list[Tensor]:
    with noisynet.using(net, drawn):
        return gradients(net, net(x).square().sum())


@pytest.mark.parametrize(("rows", "static"), STATES)
def test_drawing_again_before_backward_does_not_change_gradients(
    net: Any, rows: int | None, static: bool
) -> None:
    x = torch.randn(6, 3)
    noisynet.hold(net, rows=rows, static=static)
    of_forward: Any = noisynet.held(net)
    loss = net(x).square().sum()
    noisynet.resample(net)
    assert not torch.equal(of_forward.flats[0], noisynet.held(net).flats[0])
    for got, expected in zip(
        gradients(net, loss), gradients_under(net, of_forward, x), strict=True
    ):
        assert torch.equal(got, expected)


@pytest.mark.parametrize(("rows", "static"), STATES)
def test_two_forwards_before_one_backward_add_up(net: Any, rows: int | None, static: bool) -> None:
    first_x, second_x = torch.randn(6, 3), torch.randn(6, 3)
    noisynet.hold(net, rows=rows, static=static)
    first: Any = noisynet.held(net)
    loss = net(first_x).square().sum()
    noisynet.resample(net)
    second: Any = noisynet.held(net)
    loss = loss + net(second_x).square().sum()
    if rows is not None:
        noisynet.resample(net, where=torch.tensor([True, False] * 3))
    expected = zip(
        gradients_under(net, first, first_x), gradients_under(net, second, second_x), strict=True
    )
    for got, (a, b) in zip(gradients(net, loss), expected, strict=True):
        torch.testing.assert_close(got, a + b)


@pytest.mark.parametrize("per_row", [False, True])
def test_fresh_forwards_keep_each_their_draw(net: Any, per_row: bool) -> None:
    noisynet.release(net, per_row=per_row)
    x = torch.randn(6, 3)
    torch.manual_seed(5)
    alone = gradients(net, net(x).square().sum())
    torch.manual_seed(5)
    loss = net(x).square().sum()
    net(x)
    noisynet.resample(net)
    for got, expected in zip(gradients(net, loss), alone, strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("rows", [None, 3])
def test_static_noise_keeps_its_address(net: Any, rows: int | None) -> None:
    noisynet.hold(net, rows=rows, static=True)
    layers: list[Any] = list(noisynet.noisy_layers(net).values())

    def addresses() -> list[int]:
        return [layer.noise_state.held.data_ptr() for layer in layers]

    fixed, former = addresses(), noisynet.held(net)
    assert len(set(fixed)) == len(layers)
    noisynet.resample(net)
    assert addresses() == fixed
    assert not torch.equal(noisynet.held(net).flats[0], former.flats[0])
    if rows is not None:
        noisynet.resample(net, where=[True, False, True])
        assert addresses() == fixed
    noisynet.hold(net, drawn=former, static=True)
    assert addresses() == fixed
    assert torch.equal(noisynet.held(net).flats[0], former.flats[0])


def test_a_static_hold_does_not_write_into_the_draw_it_was_given(net: Any) -> None:
    drawn: Any = noisynet.draw(net)
    kept = drawn.clone()
    noisynet.hold(net, drawn=drawn, static=True)
    noisynet.resample(net)
    assert all(torch.equal(a, b) for a, b in zip(drawn.flats, kept.flats, strict=True))
