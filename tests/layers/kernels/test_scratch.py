"""Memory that forwards share: no order of forwards and backwards, and no thread, sees it."""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

import noisynet
from noisynet.layers import NoisyLinear
from noisynet.layers.kernels import dispatch, scratch

from ..references import new_tensors


@pytest.fixture(autouse=True)
def _small_layers_use_scratch_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "TINY_WEIGHT", 0)
    monkeypatch.setattr(dispatch, "SMALL_WEIGHT", 0)


P, Q, ROWS = 5, 4, 3
NewForm = Callable[..., Callable[..., Tensor]]


def leaves(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.detach().clone().requires_grad_() for tensor in tensors)


def gradients(y: Tensor, wanted: tuple[Tensor, ...], *, again: bool = False) -> tuple[Tensor, ...]:
    return torch.autograd.grad(y.square().sum(), wanted, retain_graph=again)


def assert_equal(got: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_forwards_of_one_shape_before_their_backwards(
    new_form: NewForm, order: tuple[int, ...]
) -> None:
    forms = [new_form(P, Q, ROWS) for _ in order]
    tensors = [leaves(new_tensors(P, Q, ROWS)) for _ in order]
    alone = [gradients(form(*given), given) for form, given in zip(forms, tensors, strict=True)]
    outputs = [form(*given) for form, given in zip(forms, tensors, strict=True)]
    for number in order:
        assert_equal(gradients(outputs[number], tensors[number]), alone[number])


def test_backward_twice_through_one_graph(new_form: NewForm) -> None:
    form, other = new_form(P, Q, ROWS), new_form(P, Q, ROWS)
    given = leaves(new_tensors(P, Q, ROWS))
    y = form(*given)
    first = gradients(y, given, again=True)
    other(*leaves(new_tensors(P, Q, ROWS)))
    assert_equal(gradients(y, given, again=True), first)
    assert_equal(gradients(y, given), first)


def test_derivatives_of_first_and_second_order(new_form: NewForm) -> None:
    form, given = new_form(P, Q, ROWS), leaves(new_tensors(P, Q, ROWS))
    assert torch.autograd.gradcheck(form, given)
    assert torch.autograd.gradgradcheck(form, given)


@pytest.mark.parametrize("frozen", range(5))
def test_second_derivatives_with_one_argument_frozen(new_form: NewForm, frozen: int) -> None:
    form, given = new_form(2, 3, 2), leaves(new_tensors(2, 3, 2))
    given[frozen].requires_grad_(False)
    assert torch.autograd.gradgradcheck(form, given)


def test_a_second_derivative_after_another_forward(new_form: NewForm) -> None:
    """A gradient penalty: the first derivative is made, others compute, then it is derived."""
    form, given = new_form(P, Q, ROWS), leaves(new_tensors(P, Q, ROWS))

    def penalty(between: Callable[[], object]) -> tuple[Tensor, ...]:
        y = form(*given)
        between()
        (slope,) = torch.autograd.grad(y.square().sum(), given[0], create_graph=True)
        between()
        return torch.autograd.grad(slope.square().sum(), given)

    def others() -> None:
        values = leaves(new_tensors(P, Q, ROWS))
        gradients(new_form(P, Q, ROWS)(*values), values)

    assert_equal(penalty(others), penalty(lambda: None))


def test_batched_cotangents_as_in_a_vectorised_jacobian(new_form: NewForm) -> None:
    form, given = new_form(P, Q, ROWS), new_tensors(P, Q, ROWS)
    one_by_one = torch.autograd.functional.jacobian(form, given)
    together = torch.autograd.functional.jacobian(form, given, vectorize=True)
    for a, b in zip(together, one_by_one, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_first_used_under_inference_mode_then_for_learning(
    new_form: NewForm, dtype: torch.dtype
) -> None:
    def act_then_learn() -> None:
        form = new_form(P, Q, ROWS, torch.float32)
        given = leaves(new_tensors(P, Q, ROWS, torch.float32))
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            with torch.inference_mode():
                acted = form(*given)
            learned = form(*given)
        assert learned.dtype == dtype
        assert torch.equal(learned, acted)
        assert all(gradient.isfinite().all() for gradient in gradients(learned.float(), given))

    # A new thread has no memory yet: its first is borrowed under inference_mode.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(act_then_learn).result()


def test_weights_that_changed_before_backward_are_an_error_as_in_nn_linear() -> None:
    layer, plain = noisynet.NoisyLinear(P, Q), nn.Linear(P, Q)
    x = torch.randn(64, P, requires_grad=True)  # rows enough for one product
    for module in (plain, layer):
        y = module(x)
        with torch.no_grad():
            module.weight.add_(1.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def many_shapes(noise: str) -> nn.Sequential:
    """Shapes that occur twice, more of them than a thread keeps, wide enough for one product."""
    sizes = [6, 7, 7, 7, *range(8, 8 + scratch.KEPT), 6, 6]
    return nn.Sequential(
        *(
            layer
            for p, q in itertools.pairwise(sizes)
            for layer in (noisynet.NoisyLinear(p, q, noise=noise), nn.Tanh())
        )
    )


@pytest.mark.parametrize("state", ["held", "rows", "per row"])
def test_more_shapes_than_are_kept(noise: str, state: str) -> None:
    """A deep network against itself in float64, where each forward is checked above."""
    net = many_shapes(noise)
    rows = 40
    drawn = noisynet.draw(net, rows=rows if state == "rows" else None)
    x = torch.randn(rows, 6)
    exact = copy.deepcopy(net).double()

    def learn(module: nn.Module, values: Tensor) -> list[Tensor]:
        if state == "per row":
            noisynet.release(module, per_row=True)
            torch.manual_seed(5)
            return list(torch.autograd.grad(module(values).sum(), list(module.parameters())))
        with noisynet.using(module, drawn.to(values.dtype)):
            return list(torch.autograd.grad(module(values).sum(), list(module.parameters())))

    first = learn(net, x)
    assert_equal(tuple(learn(net, x)), tuple(first))
    if state == "per row":  # float64 draws other normals
        return
    for fast, slow in zip(first, learn(exact, x.double()), strict=True):
        torch.testing.assert_close(fast.double(), slow, rtol=1e-4, atol=1e-4)


def in_threads(work: Callable[[int], tuple[Tensor, ...]], count: int) -> list[tuple[Tensor, ...]]:
    """Do the work of all numbers at once, from a common start."""
    start = threading.Barrier(count)

    def run(number: int) -> tuple[Tensor, ...]:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


@pytest.mark.parametrize("shared", [True, False], ids=["one layer", "a layer each"])
def test_threads_that_learn_at_once(noise: str, shared: bool) -> None:
    count, rounds, rows = 4, 30, 64
    layers = [noisynet.NoisyLinear(48, 32, noise=noise) for _ in range(1 if shared else count)]
    noisynet.hold(*layers)
    batches = torch.randn(count, rounds, rows, 48)

    def work(number: int) -> tuple[Tensor, ...]:
        layer = layers[0 if shared else number]
        found: list[Tensor] = []
        for batch in batches[number]:
            x = batch.clone().requires_grad_()
            loss = layer(x).square().sum()
            found += torch.autograd.grad(loss, [x, *layer.parameters()])
        return tuple(found)

    expected = [work(number) for number in range(count)]
    for got, wanted in zip(in_threads(work, count), expected, strict=True):
        assert_equal(got, wanted)


def test_threads_that_draw_at_once_get_the_gradients_of_their_own_draws(noise: str) -> None:
    """With x = 1 the gradient of σ_w is ε_w: the output must be what this noise makes."""
    layer = noisynet.NoisyLinear(32, 16, noise=noise)
    sigmas = (layer.weight_sigma, layer.bias_sigma)

    def work(_: int) -> tuple[Tensor, ...]:
        x, first = torch.eye(32), []
        for _ in range(30):
            y = layer(x)
            weight_noise, bias_noise = torch.autograd.grad(y.sum(), sigmas)
            bias_noise = bias_noise / 32  # every row adds it once
            weight = layer.weight + layer.weight_sigma * weight_noise
            bias = layer.bias + layer.bias_sigma * bias_noise
            torch.testing.assert_close(y, nn.functional.linear(x, weight, bias))
            first.append(weight_noise[0, 0])
        return (torch.stack(first),)

    drawn = torch.cat([values for (values,) in in_threads(work, 3)])
    assert drawn.unique().numel() == drawn.numel()


def test_a_forward_here_and_its_backward_in_another_thread(new_form: NewForm) -> None:
    form, other = new_form(P, Q, ROWS), new_form(P, Q, ROWS)
    given, values = leaves(new_tensors(P, Q, ROWS)), leaves(new_tensors(P, Q, ROWS))
    expected = gradients(form(*given), given)
    y = form(*given)

    def elsewhere() -> tuple[Tensor, ...]:
        gradients(other(*values), values)
        return gradients(y, given)

    with ThreadPoolExecutor(1) as pool:
        got = pool.submit(elsewhere)
        other(*values)
        assert_equal(got.result(), expected)


@pytest.mark.parametrize("state", ["fresh", "per row", "held", "rows"])
def test_activation_checkpointing_recomputes_with_the_same_noise(noise: str, state: str) -> None:
    net = nn.Sequential(
        noisynet.NoisyLinear(6, 6, noise=noise), nn.Tanh(), noisynet.NoisyLinear(6, 6, noise=noise)
    )
    if state in ("held", "rows"):
        noisynet.hold(net, rows=40 if state == "rows" else None)
    else:
        noisynet.release(net, per_row=state == "per row")
    x = torch.randn(40, 6, requires_grad=True)
    wanted = (x, *net.parameters())
    torch.manual_seed(3)
    expected = gradients(net(x), wanted)
    torch.manual_seed(3)
    y = checkpoint(net, x, use_reentrant=False)
    torch.randn(5)
    assert_equal(gradients(y, wanted), expected)


@pytest.mark.parametrize("state", ["fresh", "per row"])
def test_fake_tensors_leave_nothing_behind(noise: str, state: str) -> None:
    """Shapes are often tried without memory; what the same thread computes next is real."""
    with FakeTensorMode():
        fake = noisynet.NoisyLinear(P, Q, noise=noise)
        noisynet.release(fake, per_row=state == "per row")
        y = fake(torch.empty(40, P, requires_grad=True))
        y.sum().backward()
    assert y.shape == (40, Q)
    layer = noisynet.NoisyLinear(P, Q, noise=noise)
    noisynet.release(layer, per_row=state == "per row")
    y = layer(torch.randn(40, P))
    y.sum().backward()
    assert type(y) is Tensor
    assert layer.weight_sigma.grad.isfinite().all()


def test_a_redraw_before_a_recomputation_is_told_by_using(noise: str) -> None:
    """Checkpointing runs the forward again in the backward, under whatever is held by then."""
    layer, x = noisynet.NoisyLinear(6, 6, noise=noise), torch.randn(40, 6)
    noisynet.hold(layer)
    drawn = noisynet.draw(layer)

    def under_the_draw(values: Tensor) -> Tensor:
        with noisynet.using(layer, drawn):
            return layer(values).tanh()

    wanted = tuple(layer.parameters())
    expected = gradients(under_the_draw(x), wanted)
    y = checkpoint(under_the_draw, x, use_reentrant=False)
    noisynet.resample(layer)
    assert_equal(gradients(y, wanted), expected)

    y = checkpoint(lambda values: layer(values).tanh(), x, use_reentrant=False)
    of_forward = noisynet.held(layer)
    noisynet.resample(layer)
    found = gradients(y, wanted)
    with noisynet.using(layer, of_forward):
        right = gradients(layer(x).tanh(), wanted)
    assert not torch.allclose(found[0], right[0])  # why `using` belongs inside


@pytest.mark.parametrize("kind", ["factorised", "independent"])
def test_another_default_device_does_not_reach_a_layer_on_the_cpu(kind: str) -> None:
    # Sizes that no other test has: the memory is to be made inside.
    layer = NoisyLinear(181, 191, noise=kind)
    noisynet.release(layer, per_row=kind == "independent")
    x = torch.randn(64, 181)
    with torch.device("meta"):
        layer(x).square().sum().backward()
    assert layer.weight_sigma.grad is not None
    assert layer.weight_sigma.grad.isfinite().all()
    assert layer(x).device.type == "cpu"
