"""A compiled forward sees the noise in force, not the noise it was compiled with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo import config
from torch._dynamo.exc import RecompileError
from torch._dynamo.testing import CompileCounterWithBackend
from torch.fx.proxy import TraceError

import noisynet
from noisynet.layers import Draw

from .references import new_net

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning",
    "ignore:.*torch.jit.script.*deprecated:DeprecationWarning",
    "ignore:the exported graph keeps the noise draw:UserWarning",
)

ROWS = 5
# Rows enough for one product, where a shared draw is factorised and the layers are small.
BATCH = 40
HELD = {
    "held": {"rows": None, "static": False},
    "static": {"rows": None, "static": True},
    "rows": {"rows": BATCH, "static": False},
    "static rows": {"rows": BATCH, "static": True},
}
COMPILERS = [os.environ.get("CXX"), "g++", "clang++"]
needs_a_compiler = pytest.mark.skipif(
    not any(map(shutil.which, filter(None, COMPILERS))), reason="no C++ compiler"
)


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def no_more_compiling() -> Any:
    """Make it an error to compile what was compiled before once more."""
    return config.patch(error_on_recompile=True)


def gradients(net: nn.Module, y: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(y.square().sum(), list(net.parameters())))


def gradients_under(net: nn.Module, drawn: Draw, x: Tensor) -> list[Tensor]:
    with noisynet.using(net, drawn):
        return gradients(net, net(x))


def assert_close(got: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


def check_held(net: Any, backend: str, state: str) -> None:
    """Resample between forward and backward, three times over, with one compilation."""
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(net, backend=counter, fullgraph=True)
    x = torch.randn(BATCH, 3)
    noisynet.hold(net, **HELD[state])
    compiled(x)
    with no_more_compiling():
        for _ in range(3):
            of_forward: Any = noisynet.held(net)
            y = compiled(x)
            with noisynet.using(net, of_forward):
                torch.testing.assert_close(y, net(x))
            noisynet.resample(net)
            assert_close(gradients(net, y), gradients_under(net, of_forward, x))
    assert counter.frame_count == 1


@pytest.mark.parametrize("state", HELD)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_redraw_compiles_nothing_anew_and_spares_the_gradients(
    net: Any, backend: str, state: str
) -> None:
    check_held(net, backend, state)


@needs_a_compiler
@pytest.mark.slow
@pytest.mark.parametrize("state", HELD)
def test_the_same_by_the_default_backend(net: Any, state: str) -> None:
    check_held(net, "inductor", state)


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_fresh_noise_is_drawn_at_each_compiled_forward(
    net: Any, backend: str, per_row: bool
) -> None:
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(net, backend=counter, fullgraph=True)
    x = torch.randn(BATCH, 3)
    noisynet.release(net, per_row=per_row)
    former = compiled(x)
    with no_more_compiling():
        for seed in range(2):
            # These backends draw with PyTorch's own generator, so the seed says which noise it is.
            torch.manual_seed(seed)
            y = compiled(x)
            torch.manual_seed(seed)
            expected = net(x)
            torch.testing.assert_close(y, expected)
            assert not torch.allclose(y, former)
            torch.randn(3)
            assert_close(gradients(net, y), gradients(net, expected))
            former = y.detach()
    assert counter.frame_count == 1


def test_each_state_is_compiled_once(net: Any) -> None:
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(net, backend=counter, fullgraph=True)
    x = torch.randn(BATCH, 3)
    drawn: Any = noisynet.draw(net)

    def through_all_states() -> None:
        noisynet.release(net)
        compiled(x)
        noisynet.hold(net)
        torch.testing.assert_close(compiled(x), net(x))
        noisynet.hold(net, rows=BATCH)
        torch.testing.assert_close(compiled(x), net(x))
        with noisynet.mean_weights(net):
            torch.testing.assert_close(compiled(x), net(x))
        with noisynet.using(net, drawn):
            torch.testing.assert_close(compiled(x), net(x))

    through_all_states()
    states = counter.frame_count
    assert states <= 5
    with no_more_compiling():
        through_all_states()
    assert counter.frame_count == states


def test_a_masked_redraw_compiles_at_most_once_more(net: Any) -> None:
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(net, backend=counter, fullgraph=True)
    x = torch.randn(ROWS, 3)
    noisynet.hold(net, rows=ROWS)
    compiled(x)
    for number in range(ROWS):
        noisynet.resample(net, where=torch.arange(ROWS) == number)
        torch.testing.assert_close(compiled(x), net(x))
        noisynet.resample(net)
        torch.testing.assert_close(compiled(x), net(x))
    assert counter.frame_count <= 2


def test_the_counting_would_notice(net: Any) -> None:
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    noisynet.hold(net)
    compiled(torch.randn(BATCH, 3))
    noisynet.hold(net, rows=BATCH)
    with no_more_compiling(), pytest.raises(RecompileError):
        compiled(torch.randn(BATCH, 3))


def test_a_compiled_training_step_follows_the_plain_one(noise: str) -> None:
    """Ten steps with `attach`, compiled and not, from the same start under the same draws."""
    net, twin = new_net(noise), new_net(noise)
    twin.load_state_dict(net.state_dict())
    x, target = torch.randn(BATCH, 3), torch.randn(BATCH, 4)
    results = []
    for model, backend in ((net, "aot_eager"), (twin, None)):
        call = model if backend is None else torch.compile(model, backend=backend, fullgraph=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        noisynet.attach(optimizer, model, generator=torch.Generator().manual_seed(4))
        for _ in range(10):
            optimizer.zero_grad()
            (call(x) - target).square().mean().backward()
            optimizer.step()
        results.append([parameter.detach() for parameter in model.parameters()])
    assert_close(*results)


@pytest.mark.parametrize("state", HELD)
def test_drawing_inside_what_is_compiled(net: Any, state: str) -> None:
    """`resample`, `using` and `mean_weights` may stand in a compiled function, too."""
    x = torch.randn(BATCH, 3)
    noisynet.hold(net, **HELD[state])
    counter = CompileCounterWithBackend("aot_eager")

    def redraw_and_act() -> Tensor:
        noisynet.resample(net)
        return net(x)

    def with_a_draw(drawn: Draw) -> tuple[Tensor, Tensor]:
        with noisynet.using(net, drawn):
            under_draw = net(x)
        with noisynet.mean_weights(net):
            return under_draw, net(x)

    act = torch.compile(redraw_and_act, backend=counter, fullgraph=True)
    learn = torch.compile(with_a_draw, backend=counter, fullgraph=True)
    seen: list[Tensor] = []
    for _ in range(3):
        y = act()
        held: Any = noisynet.held(net)
        torch.testing.assert_close(y, net(x))
        assert not any(torch.allclose(y, former) for former in seen)
        assert_close(gradients(net, y), gradients_under(net, held, x))
        seen.append(y.detach())
        drawn: Any = noisynet.draw(net, rows=held.rows)
        for got, expected in zip(learn(drawn), with_a_draw(drawn), strict=True):
            torch.testing.assert_close(got, expected)
        torch.testing.assert_close(net(x), y)  # the held draw is back in force
    assert counter.frame_count == 2


@pytest.mark.parametrize("state", ["rows", "static rows"])
def test_rows_are_redrawn_inside_what_is_compiled(net: Any, state: str) -> None:
    x, done = torch.randn(BATCH, 3), torch.arange(BATCH) % 3 == 0
    noisynet.hold(net, **HELD[state])

    @torch.compile(backend="aot_eager", fullgraph=True)
    def redraw_and_act(where: Tensor) -> Tensor:
        noisynet.resample(net, where=where)
        return net(x)

    for where in (done, ~done):
        before = net(x)
        y = redraw_and_act(where)
        torch.testing.assert_close(y, net(x))
        assert torch.equal((y != before).any(-1), where)


def test_rows_are_picked_inside_what_is_compiled(net: Any) -> None:
    drawn = noisynet.draw(net, rows=8)
    x, index = torch.randn(3, 3), torch.tensor([5, 0, 2])

    def picked(index: Tensor) -> Tensor:
        with noisynet.using(net, drawn[index]):
            by_index = net(x)
        with noisynet.using(net, drawn[5:].clone()):
            return by_index + net(x)

    compiled = torch.compile(picked, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(index), picked(index))


@pytest.mark.parametrize("state", ["fresh", "held"])
def test_an_exported_net_keeps_the_draw_it_held(net: Any, state: str) -> None:
    x = torch.randn(BATCH, 3)
    if state == "held":
        noisynet.hold(net)
    exported = torch.export.export(net, (x,)).module()
    first, second = exported(x), exported(x)
    assert torch.equal(first, second) == (state == "held")
    if state == "held":
        torch.testing.assert_close(first, net(x))
        noisynet.resample(net)
        assert torch.equal(exported(x), first)


def test_what_does_not_take_noisy_layers(net: Any) -> None:
    with pytest.raises(TraceError):
        torch.fx.symbolic_trace(net)
    with pytest.raises((RuntimeError, ValueError)):
        torch.jit.script(net)


@needs_a_compiler
@pytest.mark.slow
@pytest.mark.parametrize("per_row", [False, True])
def test_the_default_backend_draws_fresh_noise_by_itself(net: Any, per_row: bool) -> None:
    noisynet.release(net, per_row=per_row)
    compiled = torch.compile(net, fullgraph=True)
    x = torch.randn(BATCH, 3)

    def seeded(call: Callable[[Tensor], Tensor]) -> Tensor:
        torch.manual_seed(5)
        return call(x)

    first = seeded(compiled)
    torch.testing.assert_close(seeded(compiled), first)
    assert not torch.allclose(compiled(x), first)
    assert not torch.allclose(seeded(net), first)
