"""On a GPU: equal to the CPU, and captured in CUDA graphs whose replays see new noise."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import noisynet
from noisynet.layers import OutputNoise

from .references import STATES, put_into

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings(
        "ignore:.*should not be instantiated:DeprecationWarning",
        "ignore:.*torch.jit.script.*deprecated:DeprecationWarning",
    ),
]

P, Q, ROWS = 64, 32, 48


def small_net(noise: str) -> nn.Sequential:
    return nn.Sequential(
        noisynet.NoisyLinear(P, Q, noise=noise), nn.Tanh(), noisynet.NoisyLinear(Q, 4, noise=noise)
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize("batch", [1, ROWS, 600])
@pytest.mark.parametrize("rows", [False, True])
def test_forward_and_gradients_are_those_of_the_cpu(
    noise: str, rows: bool, batch: int, dtype: torch.dtype, tolerance: float
) -> None:
    here = small_net(noise).to(dtype)
    drawn = noisynet.draw(here, rows=batch if rows else None)
    there = copy.deepcopy(here).cuda()
    x = torch.randn(batch, P, dtype=dtype)
    answers = []
    for net, values, noise_used in ((here, x, drawn), (there, x.cuda(), drawn.to("cuda"))):
        leaf = values.clone().requires_grad_()
        with noisynet.using(net, noise_used):
            y = net(leaf)
        gradients = torch.autograd.grad(y.square().mean(), [leaf, *net.parameters()])
        answers.append([y.detach().cpu(), *(gradient.cpu() for gradient in gradients)])
    for cpu, gpu in zip(*answers, strict=True):
        torch.testing.assert_close(gpu, cpu, rtol=tolerance, atol=tolerance)


def test_fresh_rows_of_independent_noise_have_the_gradients_of_their_formula() -> None:
    shapes = ((ROWS, P), (Q, P), (Q,), (Q, P), (Q,), (ROWS, Q))
    tensors = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    answers = []
    for device in ("cpu", "cuda"):
        given = [tensor.to(device).requires_grad_() for tensor in tensors[:5]]
        normals = OutputNoise(tensors[5].to(device))
        y = noisynet.layers.noisy_linear(*given, normals)
        answers.append([y.detach().cpu()])
        answers[-1] += [g.cpu() for g in torch.autograd.grad(y.square().mean(), given)]
    for cpu, gpu in zip(*answers, strict=True):
        torch.testing.assert_close(gpu, cpu, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("state", STATES)
def test_nothing_is_drawn_on_the_cpu(noise: str, state: str) -> None:
    net = small_net(noise).cuda()
    before = torch.get_rng_state()
    put_into(net, state, ROWS)
    net(torch.randn(ROWS, P, device="cuda"))
    assert torch.equal(torch.get_rng_state(), before)
    held = noisynet.held(net)
    assert held is None or all(flat.is_cuda for flat in held.flats)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("state", STATES)
def test_autocast(noise: str, state: str, dtype: torch.dtype) -> None:
    net, x = small_net(noise).cuda(), torch.randn(ROWS, P, device="cuda")
    put_into(net, state, ROWS)

    def run(autocast: bool) -> tuple[Tensor, list[Tensor]]:
        torch.cuda.manual_seed(7)
        with torch.autocast("cuda", dtype, enabled=autocast):
            y = net(x)
        return y, list(torch.autograd.grad(y.float().square().sum(), list(net.parameters())))

    exact, exact_gradients = run(autocast=False)
    fast, fast_gradients = run(autocast=True)
    assert fast.dtype == dtype
    for got, expected in zip([fast, *fast_gradients], [exact, *exact_gradients], strict=True):
        # Two layers of bfloat16's 8 bits.
        assert (got.float() - expected).norm() < 2.0**-5 * expected.norm()
    assert {gradient.dtype for gradient in fast_gradients} == {torch.float32}


def captured(
    work: Callable[[], Tensor], graph: torch.cuda.CUDAGraph | None = None
) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """Capture some work after running it on a side stream, as PyTorch's notes ask for."""
    graph = torch.cuda.CUDAGraph() if graph is None else graph
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph):
        output = work()
    return graph, output


@pytest.mark.parametrize("rows", [None, ROWS])
def test_a_replayed_forward_uses_what_was_redrawn_outside(noise: str, rows: int | None) -> None:
    net, x = small_net(noise).cuda(), torch.randn(ROWS, P, device="cuda")
    noisynet.hold(net, rows=rows, static=True)
    with torch.no_grad():
        graph, y = captured(lambda: net(x))
        seen = []
        for _ in range(3):
            noisynet.resample(net)
            graph.replay()
            torch.testing.assert_close(y, net(x))
            seen.append(y.clone())
        graph.replay()
        assert torch.equal(y, seen[-1])  # held until it is redrawn
        if rows is not None:
            noisynet.resample(net, where=torch.arange(rows, device="cuda") < 5)
            graph.replay()
            changed = (y != seen[-1]).any(-1)
            assert changed.tolist() == [row < 5 for row in range(rows)]
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


@pytest.mark.parametrize("rows", [None, ROWS])
def test_a_redraw_inside_the_graph_draws_at_each_replay(noise: str, rows: int | None) -> None:
    net, x = small_net(noise).cuda(), torch.randn(ROWS, P, device="cuda")
    noisynet.hold(net, rows=rows, static=True)

    def redraw_and_act() -> Tensor:
        noisynet.resample(net)
        return net(x)

    with torch.no_grad():
        graph, y = captured(redraw_and_act)
        seen = []
        for _ in range(3):
            graph.replay()
            # What the graph drew is what is held now, at the same address.
            torch.testing.assert_close(y, net(x))
            seen.append(y.clone())
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


@pytest.mark.parametrize("per_row", [False, True])
def test_fresh_noise_is_drawn_at_each_replay(noise: str, per_row: bool) -> None:
    net, x = small_net(noise).cuda(), torch.randn(ROWS, P, device="cuda")
    noisynet.release(net, per_row=per_row)
    with torch.no_grad():
        graph, y = captured(lambda: net(x))
        seen = []
        for _ in range(3):
            graph.replay()
            seen.append(y.clone())
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_a_generator_of_ones_own_is_registered_with_the_graph(noise: str) -> None:
    net, x = small_net(noise).cuda(), torch.randn(ROWS, P, device="cuda")
    generator = torch.Generator("cuda").manual_seed(4)
    noisynet.hold(net, static=True, generator=generator)

    def redraw_and_act() -> Tensor:
        noisynet.resample(net, generator=generator)
        return net(x)

    with torch.no_grad():
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(generator)
        _, y = captured(redraw_and_act, graph)
        graph.replay()
        first = y.clone()
        graph.replay()
    assert not torch.equal(first, y)


@pytest.mark.parametrize("redraw", ["outside", "inside"])
def test_a_captured_training_step_is_the_plain_one(noise: str, redraw: str) -> None:
    """Forward, backward and optimizer step in one graph, against a copy that learns without."""
    net = small_net(noise).cuda()
    x, target = torch.randn(ROWS, P, device="cuda"), torch.randn(ROWS, 4, device="cuda")
    noisynet.hold(net, static=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)

    def step() -> Tensor:
        if redraw == "inside":
            noisynet.resample(net)
        optimizer.zero_grad(set_to_none=False)
        loss = (net(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    graph, loss = captured(step)
    twin = copy.deepcopy(net)
    twin_optimizer = torch.optim.SGD(twin.parameters(), lr=0.05)
    losses = []
    for _ in range(10):
        if redraw == "outside":
            noisynet.resample(net)
        graph.replay()
        # The draw that this replay used is held still.
        drawn = noisynet.held(net)
        assert drawn is not None
        with noisynet.using(twin, drawn):
            expected = (twin(x) - target).square().mean()
        twin_optimizer.zero_grad()
        expected.backward()
        twin_optimizer.step()
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-4, atol=1e-5)
        losses.append(float(loss))
        for mine, theirs in zip(net.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert len(set(losses)) == len(losses)


@pytest.mark.slow
@pytest.mark.parametrize("static", [False, True])
def test_compiled_with_cuda_graphs(noise: str, static: bool) -> None:
    net, x = small_net(noise).cuda(), torch.randn(ROWS, P, device="cuda")
    noisynet.hold(net, static=static)
    compiled = torch.compile(net, mode="reduce-overhead", fullgraph=True)
    for _ in range(5):
        noisynet.resample(net)
        of_forward = noisynet.held(net)
        assert of_forward is not None
        torch.compiler.cudagraph_mark_step_begin()
        y = compiled(x)
        noisynet.resample(net)
        got = torch.autograd.grad(y.square().mean(), list(net.parameters()))
        with noisynet.using(net, of_forward):
            expected = torch.autograd.grad(net(x).square().mean(), list(net.parameters()))
        for mine, theirs in zip(got, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
