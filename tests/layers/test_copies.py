"""State dicts, copies, processes, devices and dtypes: where noise goes and where it must not."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import noisynet
from noisynet.control import scale
from noisynet.layers import NoisyLinear


def through_pickle(module: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(module))


def through_torch_save(module: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


COPIES = [copy.deepcopy, through_pickle, through_torch_save]


def held_values(module: nn.Module) -> Tensor:
    return torch.cat([flat.flatten() for flat in noisynet.held(module).flats])


@pytest.mark.parametrize("make", COPIES)
def test_a_copied_optimizer_does_not_redraw_until_attached_again(net: Any, make: Any) -> None:
    noisynet.hold(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    noisynet.attach(optimizer, net)
    copied, of_copy = make((net, optimizer))
    assert of_copy.param_groups[0]["params"][0] is next(copied.parameters())
    before = held_values(net)
    of_copy.step()
    assert torch.equal(held_values(copied), before)
    noisynet.attach(of_copy, copied)
    attached = held_values(copied)
    of_copy.step()
    assert not torch.equal(held_values(copied), attached)
    # Each redraws its own network alone.
    assert torch.equal(held_values(net), before)
    optimizer.step()
    assert not torch.equal(held_values(net), before)


@pytest.mark.parametrize("make", COPIES)
@pytest.mark.parametrize("rows", [None, 4])
@pytest.mark.parametrize("static", [False, True])
def test_a_copy_does_the_same_and_then_draws_apart(
    net: Any, make: Callable[[nn.Module], nn.Module], rows: int | None, static: bool
) -> None:
    noisynet.hold(net, rows=rows, static=static)
    made = make(net)
    x = torch.randn(4, 3)
    before = net(x)
    assert torch.equal(made(x), before)
    noisynet.resample(made)
    assert noisynet.held(made).rows == rows
    assert not torch.equal(made(x), before)
    assert torch.equal(net(x), before)
    noisynet.resample(net)
    assert not torch.equal(net(x), made(x))


@pytest.mark.parametrize("make", COPIES)
def test_a_copy_of_a_fresh_net_is_fresh(net: Any, make: Callable[[nn.Module], nn.Module]) -> None:
    noisynet.release(net, per_row=True)
    made = make(net)
    alike = torch.randn(3).expand(2, 3)
    assert noisynet.held(made) is None
    assert not torch.equal(made(alike), made(alike))
    first, second = made(alike)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("make", COPIES)
@pytest.mark.parametrize("context", ["using", "mean_weights"])
def test_a_copy_made_inside_a_context_forgets_it(
    net: Any, make: Callable[[nn.Module], nn.Module], context: str
) -> None:
    noisynet.hold(net)
    x = torch.randn(4, 3)
    held = net(x)
    manager = (
        noisynet.using(net, noisynet.draw(net))
        if context == "using"
        else noisynet.mean_weights(net)
    )
    with manager:
        made = make(net)
        assert torch.equal(made(x), held)
        assert not torch.equal(net(x), held)
    assert torch.equal(made(x), held)


def test_a_copy_holds_no_more_than_its_own_layer() -> None:
    """Layers hold views of one draw; a pickled layer must not carry the whole model's."""
    big: Any = nn.Sequential(NoisyLinear(2, 2), NoisyLinear(2, 50_000, noise="factorised"))
    noisynet.hold(big)
    assert len(pickle.dumps(big[0])) < 20_000


def test_another_process_shares_parameters_and_not_noise(net: Any) -> None:
    """Workers of A3C share the parameters; each must draw for itself, also in place."""
    net.share_memory()
    noisynet.hold(net, static=True)
    before = held_values(net)
    net.share_memory()
    assert torch.equal(held_values(net), before)
    assert all(parameter.is_shared() for parameter in net.parameters())
    assert not any(layer.noise_state.held.is_shared() for layer in (net[2], net[4]))
    with torch.multiprocessing.get_context("spawn").Pool(1) as pool:
        # What the child got is the parent's draw, by value.
        sent: Any = pool.apply(noisynet.held, (net,))
        assert torch.equal(torch.cat([flat.flatten() for flat in sent.flats]), before)
        pool.apply(noisynet.resample, (net,))
        assert torch.equal(held_values(net), before)
        # The check can see sharing: parameters are shared, and a child's write arrives here.
        pool.apply(torch.fill_, (net[2].weight.detach(), 3.0))
        assert torch.equal(net[2].weight, torch.full_like(net[2].weight, 3.0))


def test_held_noise_follows_the_device_of_loading(net: Any) -> None:
    """A net saved on a GPU and loaded where there is none; `meta` plays the other device."""
    noisynet.hold(net)
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    loaded: Any = torch.load(buffer, map_location="meta", weights_only=False)
    assert loaded[2].weight.is_meta
    assert loaded(torch.empty(5, 3, device="meta")).shape == (5, 4)
    assert all(flat.is_meta for flat in noisynet.held(loaded).flats)


def test_held_noise_follows_weights_that_are_assigned() -> None:
    layer = NoisyLinear(3, 2, device="meta")
    noisynet.hold(layer, rows=4)
    layer.load_state_dict(NoisyLinear(3, 2, dtype=torch.float64).state_dict(), assign=True)
    x = torch.randn(4, 3, dtype=torch.float64)
    assert torch.equal(layer(x), layer(x))
    assert noisynet.held(layer).flats[0].dtype == torch.float64


@pytest.mark.parametrize("move", [*COPIES, lambda net: net.to(torch.float64)])
def test_what_is_moved_under_inference_mode_can_be_redrawn_and_scaled(
    net: Any, move: Callable[[nn.Module], Any]
) -> None:
    noisynet.hold(net, rows=4, static=True)
    scale(net, 0.5)
    with torch.inference_mode():
        moved = move(net)
    before = held_values(moved)
    noisynet.resample(moved)
    assert not torch.equal(held_values(moved), before)
    assert scale(moved, 0.3) == 0.3
    with torch.no_grad():
        x = torch.randn(4, 3, dtype=moved[2].weight.dtype)
        assert torch.equal(moved(x), moved(x))
