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


@pytest.mark.parametrize("rows", [None, 2])
def test_noise_is_in_no_register(net: nn.Sequential, rows: int | None) -> None:
    names = {
        f"{layer}.{name}"
        for layer, names in (
            ("0", ["weight", "bias"]),
            ("2", ["weight", "bias", "weight_sigma", "bias_sigma"]),
            ("4", ["weight", "bias", "weight_sigma", "bias_sigma"]),
        )
        for name in names
    }
    for prepare in (noisynet.release, lambda module: noisynet.hold(module, rows=rows)):
        prepare(net)
        before = {name: value.clone() for name, value in net.state_dict().items()}
        assert before.keys() == names
        assert dict(net.named_parameters()).keys() == names
        assert list(net.buffers()) == []
        noisynet.resample(net)
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_target_sync_copies_what_is_learned_and_no_noise(
    new_net: Callable[..., nn.Sequential], noise: str
) -> None:
    online, target = new_net(noise), new_net(noise)
    noisynet.hold(online, target)
    of_target = held_values(target)
    x = torch.randn(2, 3)
    target.load_state_dict(online.state_dict())
    assert torch.equal(held_values(target), of_target)
    assert not torch.equal(online(x), target(x))
    with noisynet.mean_weights(online, target):
        assert torch.equal(online(x), target(x))


def test_a_plain_checkpoint_loads_and_sigma_keeps_its_initial_value(noise: str) -> None:
    plain, noisy = nn.Linear(3, 2), NoisyLinear(3, 2, noise=noise)
    sigma = noisy.weight_sigma.detach().clone()
    result = noisy.load_state_dict(plain.state_dict(), strict=False)
    assert result.missing_keys == ["weight_sigma", "bias_sigma"]
    assert result.unexpected_keys == []
    assert torch.equal(noisy.weight, plain.weight)
    assert torch.equal(noisy.bias, plain.bias)
    assert torch.equal(noisy.weight_sigma, sigma)
    with pytest.raises(RuntimeError, match=r"Missing key.*weight_sigma"):
        noisy.load_state_dict(plain.state_dict())


def test_a_strict_round_trip(new_net: Callable[..., nn.Sequential], noise: str) -> None:
    first, second = new_net(noise), new_net(noise)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert second.load_state_dict(first.state_dict()) == ([], [])
    drawn = noisynet.draw(first)
    x = torch.randn(4, 3)
    with noisynet.using(first, drawn), noisynet.using(second, drawn):
        assert torch.equal(first(x), second(x))


@pytest.mark.parametrize("make", COPIES)
@pytest.mark.parametrize("rows", [None, 4])
@pytest.mark.parametrize("static", [False, True])
def test_a_copy_does_the_same_and_then_draws_apart(
    net: nn.Sequential, make: Callable[[nn.Module], nn.Module], rows: int | None, static: bool
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
def test_a_copy_of_a_fresh_net_is_fresh(
    net: nn.Sequential, make: Callable[[nn.Module], nn.Module]
) -> None:
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
    net: nn.Sequential, make: Callable[[nn.Module], nn.Module], context: str
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
    big = nn.Sequential(NoisyLinear(2, 2), NoisyLinear(2, 50_000, noise="factorised"))
    noisynet.hold(big)
    assert len(pickle.dumps(big[0])) < 20_000


def test_another_process_shares_parameters_and_not_noise(net: nn.Sequential) -> None:
    """Workers of A3C share the parameters; each must draw for itself, also in place."""
    net.share_memory()
    noisynet.hold(net, static=True)
    net.share_memory()
    before = held_values(net)
    assert net[2].weight.is_shared()
    assert not any(layer.noise_state.held.is_shared() for layer in (net[2], net[4]))
    with torch.multiprocessing.get_context("spawn").Pool(1) as pool:
        # What the child got is the parent's draw, by value.
        assert torch.equal(
            torch.cat([f.flatten() for f in pool.apply(noisynet.held, (net,)).flats]), before
        )
        pool.apply(noisynet.resample, (net,))
        assert torch.equal(held_values(net), before)
        # The check can see sharing: parameters are shared, and a child's write arrives here.
        pool.apply(torch.fill_, (net[2].weight.detach(), 3.0))
        assert torch.equal(net[2].weight, torch.full_like(net[2].weight, 3.0))


def test_share_memory_does_not_share_what_is_held(net: nn.Sequential) -> None:
    noisynet.hold(net)
    before = held_values(net)
    net.share_memory()
    assert all(parameter.is_shared() for parameter in net.parameters())
    assert not any(layer.noise_state.held.is_shared() for layer in (net[2], net[4]))
    assert torch.equal(held_values(net), before)


@pytest.mark.parametrize("rows", [None, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_held_noise_follows_the_dtype(
    net: nn.Sequential, dtype: torch.dtype, rows: int | None
) -> None:
    noisynet.hold(net, rows=rows)
    x = torch.randn(4, 3)
    before, drawn = net(x), noisynet.held(net)
    net.to(dtype)
    assert {flat.dtype for flat in noisynet.held(net).flats} == {dtype}
    assert torch.equal(noisynet.held(net).flats[0], drawn.to(dtype).flats[0])
    after = net(x.to(dtype))
    assert after.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float64 else 0.1
    torch.testing.assert_close(after.float(), before, rtol=tolerance, atol=tolerance)
    noisynet.resample(net)
    assert {flat.dtype for flat in noisynet.held(net).flats} == {dtype}
    assert net(x.to(dtype)).dtype == dtype


def test_built_on_meta_and_filled_later(noise: str) -> None:
    torch.manual_seed(0)
    layer = NoisyLinear(30, 20, noise=noise, device="meta")
    noisynet.hold(layer, rows=4)
    assert layer(torch.empty(4, 30, device="meta")).shape == (4, 20)
    layer.to_empty(device="cpu")
    layer.reset_parameters()
    held = held_values(layer)
    # The draw on meta had no values: now it has real ones, with the moments of noise.
    assert held.device.type == "cpu"
    assert noisynet.held(layer).rows == 4
    expected = (2 / torch.pi) ** 0.5 if noise == "factorised" else 1.0
    bound = 5 * (2 / len(held)) ** 0.5
    assert abs(float(held.square().mean()) - expected) < bound
    filled = NoisyLinear(30, 20, noise=noise)
    assert torch.equal(layer.weight_sigma, filled.weight_sigma)
    x = torch.randn(4, 30)
    assert torch.equal(layer(x), layer(x))


def test_held_noise_follows_the_device_of_loading(net: nn.Sequential) -> None:
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
    net: nn.Sequential, move: Callable[[nn.Module], nn.Module]
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
