"""Rows as the first dimension: each index of a batch has its draw, whatever stands behind it."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import noisynet
from noisynet.layers import Draw, IndependentNoise, NoisyLinear, OutputNoise, noisy_linear
from noisynet.layers.kernels import dispatch
from noisynet.layers.noise import NoiseName
from noisynet.layers.weights import Weights

from .references import new_net

# PyTorch's own forward derivatives are loaded with it.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*deprecated:DeprecationWarning")

ROWS = 3


@pytest.fixture
def double_net(noise: str) -> nn.Sequential:
    return new_net(noise, torch.float64)


def hold(net: nn.Module, **options: Any) -> Draw:
    noisynet.hold(net, rows=ROWS, batch_first=True, **options)
    drawn = noisynet.held(net)
    assert drawn is not None
    return drawn


def row_by_row(net: nn.Module, drawn: Draw, batch: Tensor) -> Tensor:
    """Each index of the first dimension alone, under its draw."""
    outputs = []
    for row, alone in enumerate(batch):
        with noisynet.using(net, drawn[row]):
            outputs.append(net(alone))
    return torch.stack(outputs)


@pytest.mark.parametrize("between", [(), (1,), (7,), (5, 2), (ROWS,), (ROWS, ROWS)])
def test_row_i_uses_draw_i_over_all_dimensions_between(
    double_net: nn.Sequential, between: tuple[int, ...]
) -> None:
    drawn = hold(double_net)
    batch = torch.randn(ROWS, *between, 3, dtype=torch.float64)
    y = double_net(batch)
    assert y.shape == (ROWS, *between, 4)
    torch.testing.assert_close(y, row_by_row(double_net, drawn, batch))
    # Rows that are alike differ by their draws alone, and a row's own vectors not at all.
    alike = double_net(batch[:1, ...].expand_as(batch))
    assert all(not torch.allclose(alike[0], other) for other in alike[1:])


@settings(derandomize=True, max_examples=30)
@given(
    between=st.lists(st.integers(0, 4), max_size=3),
    rows=st.integers(1, 4),
    kind=st.sampled_from(["factorised", "independent"]),
    bias=st.booleans(),
)
def test_the_function_is_a_product_with_each_rows_own_weight(
    between: list[int], rows: int, kind: str, bias: bool
) -> None:
    layer = NoisyLinear(3, 2, bias=bias, noise=kind, dtype=torch.float64)
    noise: Any = noisynet.draw(layer, rows=rows, batch_first=True).layer("")
    x = torch.randn(rows, *between, 3, dtype=torch.float64)
    y = noisy_linear(x, layer.weight, layer.bias, layer.weight_sigma, layer.bias_sigma, noise)
    weight = layer.weight + layer.weight_sigma * noise.weight_noise()
    expected = torch.einsum("rqp,rnp->rnq", weight, x.reshape(rows, -1 if x.numel() else 0, 3))
    if bias:
        expected = expected + (layer.bias + layer.bias_sigma * noise.bias_noise()).unsqueeze(1)
    torch.testing.assert_close(y, expected.reshape(*x.shape[:-1], 2))


@pytest.mark.parametrize("between", [(), (4,), (2, 3)])
def test_gradients_are_those_of_the_rows_one_by_one(
    double_net: nn.Sequential, between: tuple[int, ...]
) -> None:
    drawn = hold(double_net)
    batch = torch.randn(ROWS, *between, 3, dtype=torch.float64, requires_grad=True)
    wanted = [batch, *double_net.parameters()]
    got = torch.autograd.grad(double_net(batch).pow(3).sum(), wanted)
    expected = torch.autograd.grad(row_by_row(double_net, drawn, batch).pow(3).sum(), wanted)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_both_derivatives_pass_the_numerical_check(noise: str) -> None:
    layer = NoisyLinear(3, 2, noise=noise, dtype=torch.float64)
    hold(layer)
    names = [name for name, _ in layer.named_parameters()]

    def output(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    x = torch.randn(ROWS, 2, 3, dtype=torch.float64, requires_grad=True)
    values = (x, *layer.parameters())
    assert torch.autograd.gradcheck(output, values, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(output, values)


def test_time_may_change_under_one_draw(double_net: nn.Sequential) -> None:
    """As in generation with a cache: a prompt first, then one token after the other."""
    hold(double_net)
    batch = torch.randn(ROWS, 6, 3, dtype=torch.float64)
    together = double_net(batch)
    pieces = [double_net(batch[:, :4]), double_net(batch[:, 4:5]), double_net(batch[:, 5:])]
    torch.testing.assert_close(torch.cat(pieces, dim=1), together)


@pytest.mark.parametrize("shape", [(2, 5, 3), (5, ROWS, 3), (4, 3), (3,), (ROWS + 1, ROWS, 3)])
def test_any_other_batch_is_one_error(net: nn.Sequential, shape: tuple[int, ...]) -> None:
    hold(net)
    said = (
        rf"^input: got shape \({', '.join(map(str, (*shape[:-1], 4)))},?\), expected \(3, …, 4\): "
        r"the noise in force is one draw for each of 3 rows, the first dimension$"
    )
    with pytest.raises(ValueError, match=said):
        net(torch.randn(shape))


def test_two_dimensions_are_the_same_in_both_places(double_net: nn.Sequential) -> None:
    drawn = hold(double_net)
    x = torch.randn(ROWS, 3, dtype=torch.float64)
    first = double_net(x)
    with noisynet.using(double_net, drawn, batch_first=False):
        assert torch.equal(double_net(x), first)
    noisynet.hold(double_net, drawn=drawn, batch_first=False)
    assert torch.equal(double_net(x), first)


def test_the_default_stays_beside_the_features(double_net: nn.Sequential) -> None:
    x = torch.randn(ROWS, 2, 3, dtype=torch.float64)
    noisynet.hold(double_net, rows=2)
    beside = noisynet.held(double_net)
    assert not beside.batch_first
    y = double_net(x)
    with noisynet.using(double_net, beside, batch_first=True):
        torch.testing.assert_close(double_net(x.transpose(0, 1)), y.transpose(0, 1))


def same(first: Draw, second: Draw) -> bool:
    return first.batch_first == second.batch_first and all(
        torch.equal(a, b) for a, b in zip(first.flats, second.flats, strict=True)
    )


def test_a_draw_says_where_its_rows_are_and_keeps_it(net: nn.Sequential) -> None:
    drawn = noisynet.draw(net, rows=5, batch_first=True)
    buffer = io.BytesIO()
    torch.save(drawn, buffer)
    buffer.seek(0)
    for one in (
        drawn.clone(),
        drawn.to("cpu"),
        copy.deepcopy(drawn),
        pickle.loads(pickle.dumps(drawn)),
        torch.load(buffer, weights_only=True),
    ):
        assert same(one, drawn)
    assert drawn.to(torch.float64).batch_first
    picked = drawn[[4, 0, 2]]
    x = torch.randn(3, 6, 3)
    with noisynet.using(net, picked):
        y = net(x)
        assert net(torch.randn(3, 1, 3)).shape == (3, 1, 4)
    torch.testing.assert_close(y, row_by_row(net, picked, x))
    assert drawn.layer("2").batch_first
    first, second = noisynet.draw(net, copy.deepcopy(net), rows=2, batch_first=True)
    assert first.batch_first
    assert second.batch_first


def test_a_draw_saved_before_there_were_two_places_has_its_rows_beside_the_features(
    net: nn.Sequential,
) -> None:
    drawn = noisynet.draw(net, rows=2)
    function, arguments = drawn.__reduce__()
    assert same(function(*arguments[:2]), drawn)


@pytest.mark.parametrize("make", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
@pytest.mark.parametrize("static", [False, True])
def test_a_copy_and_a_redraw_keep_it(
    net: nn.Sequential, make: Callable[[nn.Module], nn.Module], static: bool
) -> None:
    drawn = hold(net, static=static)
    x = torch.randn(ROWS, 2, 3)
    made = make(net)
    assert torch.equal(made(x), net(x))
    assert same(noisynet.held(made), drawn)
    before = net(x)
    noisynet.resample(net, where=[False, True, False])
    assert ((net(x) != before).flatten(1).any(1)).tolist() == [False, True, False]
    noisynet.resample(net)
    assert noisynet.held(net).batch_first
    assert (net(x) != before).flatten(1).any(1).all()
    net.double()
    torch.testing.assert_close(net(x.double()), row_by_row(net, noisynet.held(net), x.double()))


def test_a_pickle_from_before_there_were_two_places_is_read() -> None:
    layer = NoisyLinear(3, 2)
    noisynet.hold(layer, rows=ROWS)
    state = layer.noise_state
    former = state.__getstate__()[:3]
    state.__setstate__(former)
    x = torch.randn(5, ROWS, 3)
    assert layer(x).shape == (5, ROWS, 2)
    assert not noisynet.held(layer).batch_first


def test_using_puts_the_place_into_force_and_takes_it_away(net: nn.Sequential) -> None:
    noisynet.hold(net, rows=5)
    x = torch.randn(2, 5, 3)
    held = net(x)
    with noisynet.using(net, noisynet.draw(net, rows=2, batch_first=True)):
        first = net(x)
        with noisynet.using(net, noisynet.draw(net, rows=5)):
            assert net(x).shape == (2, 5, 4)
        assert torch.equal(net(x), first)
    assert torch.equal(net(x), held)


def test_a_kept_view_of_a_draw_does_not_outlive_its_place() -> None:
    layer = NoisyLinear(3, 2)
    drawn = noisynet.draw(layer, rows=2)
    x = torch.randn(2, 2, 3)
    noisynet.hold(layer, drawn=drawn, static=True)
    beside = layer(x).detach()
    for static in (True, False):
        noisynet.hold(layer, drawn=drawn, batch_first=True, static=static)
        first = layer(x).detach()
        assert not torch.allclose(first, beside)
        torch.testing.assert_close(first.transpose(0, 1), layer_beside(layer, drawn, x))
    noisynet.hold(layer, drawn=drawn)
    torch.testing.assert_close(layer(x).detach(), beside)


def layer_beside(layer: nn.Module, drawn: Draw, x: Tensor) -> Tensor:
    with torch.no_grad(), noisynet.using(layer, drawn):
        return layer(x.transpose(0, 1))


def test_fresh_per_row_draws_one_for_each_index_of_the_batch(noise: str) -> None:
    layer = NoisyLinear(3, 2, noise=noise)
    noisynet.release(layer, per_row=True, batch_first=True)
    alike = torch.randn(3).expand(4, 6, 3)
    y = layer(alike)
    assert not torch.equal(y, layer(alike))
    torch.testing.assert_close(y, y[:, :1].expand_as(y))
    assert len({tuple(row.tolist()) for row in y[:, 0]}) == 4
    # A draw at the outputs would be another one for each of the six.
    assert isinstance(layer.noise_in_force(alike), IndependentNoise) == (noise == "independent")
    drawn = layer.noise_in_force(alike[:, 0])
    assert isinstance(drawn, OutputNoise) == (noise == "independent")
    assert layer(alike[:, 0]).shape == (4, 2)
    assert layer(alike[0, 0]).shape == (2,)
    assert repr(layer).endswith("(fresh per row, batch first))")
    noisynet.hold(layer)
    assert torch.equal(layer(alike), layer(alike))
    assert not noisynet.held(layer).batch_first


def test_fresh_independent_noise_of_a_row_has_the_covariance_of_shared_weights() -> None:
    """Two vectors of one row see the same weights: what is −2 times one has −2 times its output."""
    layer = NoisyLinear(1, 1, bias=False, noise="independent", dtype=torch.float64)
    noisynet.release(layer, per_row=True, batch_first=True)
    x = torch.tensor([[1.0], [-2.0]], dtype=torch.float64).expand(50, 2, 1)
    y = layer(x)
    torch.testing.assert_close(y[:, 1], -2 * y[:, 0])


def test_layers_with_rows_in_different_places_are_not_one_draw(net: nn.Sequential) -> None:
    noisynet.hold(net, rows=2)
    noisynet.hold(net[4], rows=2, batch_first=True)
    with pytest.raises(ValueError, match="the layers hold different draws"):
        noisynet.held(net)
    noisynet.resample(net)
    assert [net[n].noise_state.batch_first for n in (2, 4)] == [False, True]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda net: noisynet.hold(net, batch_first=True), "batch_first: got True for a draw that"),
        (lambda net: noisynet.draw(net, batch_first=True), "batch_first: got True for a draw that"),
        (
            lambda net: noisynet.release(net, batch_first=True),
            "batch_first: got True without per_row, expected it with per_row=True",
        ),
        (
            lambda net: noisynet.hold(net, drawn=noisynet.draw(net), batch_first=True),
            "batch_first: got True for a draw that all rows share",
        ),
        (
            lambda net: noisynet.using(net, noisynet.draw(net), batch_first=True).__enter__(),
            "batch_first: got True for a draw that all rows share",
        ),
        (
            lambda net: noisynet.hold(net, rows=2, batch_first=1),
            "batch_first: got 1, expected True or False",
        ),
    ],
)
def test_a_place_without_rows_is_an_error(
    net: nn.Sequential, call: Callable[[nn.Module], object], said: str
) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        call(net)
    assert noisynet.held(net) is None


@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize("kind", ["factorised", "independent"])
def test_a_convolution_has_its_batch_first_anyway(dimensions: int, kind: str) -> None:
    new = (noisynet.NoisyConv1d, noisynet.NoisyConv2d)[dimensions - 1]
    layer = new(2, 3, 3, padding=1, noise=kind, dtype=torch.float64)
    images = torch.randn(ROWS, 5, 2, *[4] * dimensions, dtype=torch.float64)
    noisynet.hold(layer, rows=ROWS)
    beside = layer(images[:, 0])
    noisynet.hold(layer, drawn=noisynet.held(layer), batch_first=True)
    assert torch.equal(layer(images[:, 0]), beside)
    # With a dimension behind the first one, it says which of the two the rows are.
    drawn = noisynet.held(layer)
    y = layer(images)
    torch.testing.assert_close(y, row_by_row(layer, drawn, images))
    with pytest.raises(ValueError, match=r"expected \(3, …, 2, .*3 rows, the first dimension$"):
        layer(images.transpose(0, 1))
    noisynet.release(layer, per_row=True, batch_first=True)
    alike = images[:1, :1].expand_as(images)
    y = layer(alike)
    torch.testing.assert_close(y, y[:, :1].expand_as(y))
    assert not torch.allclose(y[0], y[1])


def test_a_cell_takes_rows_in_either_place() -> None:
    cell = noisynet.NoisyGRUCell(3, 2)
    hold(cell)
    x = torch.randn(ROWS, 3)
    h = cell(x)
    noisynet.hold(cell, drawn=noisynet.held(cell), batch_first=False)
    assert torch.equal(cell(x), h)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bfloat16_autocast_is_close(noise: str, dtype: torch.dtype) -> None:
    layer = NoisyLinear(8, 4, noise=noise, dtype=dtype)
    hold(layer)
    x = torch.randn(ROWS, 5, 8, dtype=dtype)
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        fast = layer(x)
    assert fast.dtype == (torch.bfloat16 if dtype == torch.float32 else dtype)
    torch.testing.assert_close(fast.to(dtype), exact, rtol=0.0, atol=0.05)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_compiled_forward_serves_other_lengths(net: nn.Sequential) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    hold(net)
    for length in (4, 1, 7):
        x = torch.randn(ROWS, length, 3)
        torch.testing.assert_close(compiled(x), net(x))
    noisynet.resample(net)
    torch.testing.assert_close(compiled(x), net(x))
    torch._dynamo.reset()


def test_the_kernels_leave_rows_that_are_first_to_plain_operations() -> None:
    pytest.importorskip("triton")
    layer = NoisyLinear(300, 300)
    weights = Weights(layer.weight, layer.bias, layer.weight_sigma, layer.bias_sigma)
    drawn: Any = noisynet.draw(layer, rows=ROWS, batch_first=True).layer("")
    with dispatch.with_kernels(interpreted=True):
        assert dispatch.is_for_kernels(torch.randn(ROWS, 300), weights, drawn)
        assert not dispatch.is_for_kernels(torch.randn(ROWS, 2, 300), weights, drawn)


def test_a_batch_without_rows(net: nn.Sequential) -> None:
    empty = noisynet.draw(net, rows=ROWS, batch_first=True)[[]]
    x = torch.zeros(0, 5, 3, requires_grad=True)
    with noisynet.using(net, empty):
        assert net(x).shape == (0, 5, 4)
    noisynet.release(net, per_row=True, batch_first=True)
    net(x).sum().backward()
    assert x.grad.shape == x.shape
    assert not net[4].weight_sigma.grad.any()


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("noise", ["factorised", "independent"])
def test_a_recurrent_layers_rows_are_its_own_batch(noise: NoiseName, *, batch_first: bool) -> None:
    """Wherever the rows of the net's other layers are."""
    torch.manual_seed(0)
    layer = noisynet.NoisyLSTM(3, 4, batch_first=batch_first, noise=noise)
    input = torch.randn(2, 5, 3)  # two sequences of five steps
    drawn = noisynet.draw(layer, rows=2, batch_first=True)
    with noisynet.using(layer, drawn):
        output = layer(input if batch_first else input.transpose(0, 1))[0]
    for row in range(2):
        with noisynet.using(layer, drawn[row]):
            alone = layer(input[row])[0]
        found = output[row] if batch_first else output[:, row]
        assert torch.allclose(found, alone, atol=1e-6)
