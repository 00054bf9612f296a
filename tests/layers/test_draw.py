"""A draw as a value: generators, picked rows, one random call, moving and pickling."""

from __future__ import annotations

import dataclasses
import io
import pickle
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import noisynet
from noisynet.layers import Draw, NoisyLinear
from noisynet.layers.states import using_repeatedly

from .references import new_net


def equal(first: Draw, second: Draw) -> bool:
    return len(first.flats) == len(second.flats) and all(
        torch.equal(a, b) for a, b in zip(first.flats, second.flats, strict=True)
    )


class Counted(TorchDispatchMode):
    """Count the random calls made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.calls += torch.Tag.nondeterministic_seeded in func.tags
        return func(*args, **(kwargs or {}))


def test_a_draw_leaves_the_net_untouched(net: nn.Sequential) -> None:
    x = torch.randn(4, 3)
    noisynet.hold(net)
    before = net(x), {name: value.clone() for name, value in net.state_dict().items()}
    noisynet.draw(net, rows=4)
    assert torch.equal(net(x), before[0])
    assert all(torch.equal(value, before[1][name]) for name, value in net.state_dict().items())
    noisynet.release(net)
    noisynet.draw(net)
    assert noisynet.held(net) is None


def test_a_draw_that_is_checked_once_can_be_used_repeatedly(
    net: nn.Sequential,
) -> None:
    x, drawn = torch.randn(4, 3), noisynet.draw(net)
    with noisynet.using(net, drawn):
        expected = net(x)
    under = using_repeatedly(net, drawn)
    for _ in range(2):
        with under():
            assert torch.equal(net(x), expected)
        assert not torch.equal(net(x), expected)


def test_a_draw_from_a_device_that_is_not_here_arrives_on_the_cpu(
    net: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = noisynet.draw(net)
    monkeypatch.setattr(torch.serialization, "location_tag", lambda _: "cuda:99")
    sent = pickle.dumps(drawn)
    assert equal(pickle.loads(sent), drawn)


@pytest.mark.parametrize("rows", [None, 3])
def test_equal_seeds_give_equal_draws_and_the_global_generator_rests(
    net: nn.Sequential, rows: int | None
) -> None:
    state = torch.get_rng_state()

    def seeded(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    drawn = noisynet.draw(net, rows=rows, generator=seeded(7))
    assert equal(drawn, noisynet.draw(net, rows=rows, generator=seeded(7)))
    assert not equal(drawn, noisynet.draw(net, rows=rows, generator=seeded(8)))
    noisynet.hold(net, rows=rows, generator=seeded(7))
    x = torch.zeros(rows or 2, 3)
    held = net(x)
    with noisynet.using(net, drawn):
        assert torch.equal(net(x), held)
    noisynet.resample(net, generator=seeded(8))
    assert not torch.equal(net(x), held)
    noisynet.resample(net, generator=seeded(7))
    assert torch.equal(net(x), held)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_generator_the_global_one_is_used(net: nn.Sequential) -> None:
    torch.manual_seed(11)
    first = noisynet.draw(net)
    second = noisynet.draw(net)
    torch.manual_seed(11)
    assert equal(noisynet.draw(net), first)
    assert not equal(first, second)


@pytest.mark.parametrize("rows", [None, 5])
def test_redrawing_a_whole_model_is_one_random_call(net: nn.Sequential, rows: int | None) -> None:
    noisynet.hold(net, rows=rows)
    assert len(noisynet.noisy_layers(net)) == 2
    for function, modules in (
        (noisynet.resample, [net]),
        (noisynet.hold, [net]),
        (noisynet.draw, [net]),
        (noisynet.resample, [net, net[2]]),
    ):
        with Counted() as counted:
            function(*modules)
        assert counted.calls == len(modules)
    # A fresh forward draws once per layer; a held one not at all.
    noisynet.hold(net)
    with Counted() as counted:
        net(torch.zeros(2, 3))
    assert counted.calls == 0
    noisynet.release(net)
    with Counted() as counted:
        net(torch.zeros(2, 3))
    assert counted.calls == 2


def test_kinds_and_dtypes_may_be_mixed_in_one_model() -> None:
    net = nn.ModuleDict(
        {
            "a": noisynet.NoisyLinear(3, 3),
            "b": noisynet.NoisyLinear(3, 3, noise="independent", bias=False),
            "c": noisynet.NoisyLinear(3, 3, dtype=torch.float64),
            "d": noisynet.NoisyLinear(3, 2),
        }
    )
    drawn = noisynet.draw(net, rows=4)
    assert [flat.dtype for flat in drawn.flats] == [torch.float32, torch.float32, torch.float64]
    assert {slot.name for slot in drawn.slots} == set("abcd")
    assert drawn.layer("b").weight_noise().shape == (4, 3, 3)
    assert drawn.layer("b").bias_noise() is None
    assert drawn.layer("c").weight_noise().dtype == torch.float64
    assert drawn.layer("d").weight_noise().shape == (4, 2, 3)
    noisynet.hold(net, drawn=drawn)
    for name, layer in net.items():
        effective = layer.effective_weight()[0]
        expected = layer.weight + layer.weight_sigma * drawn.layer(name).weight_noise()
        torch.testing.assert_close(effective, expected)


@pytest.mark.parametrize(
    "index",
    [
        slice(1, 4),
        [3, 0, 3],
        torch.tensor([4, 4, 1]),
        torch.tensor([True, False, False, True, True]),
        [False, True, False, False, True],
        -1,
        2,
    ],
    ids=str,
)
def test_picked_rows_are_those_rows(net: nn.Sequential, index: Any) -> None:
    drawn = noisynet.draw(net, rows=5)
    picked = drawn[index]
    numbers = torch.arange(5)[index]
    assert picked.rows == (None if isinstance(index, int) else len(numbers))
    for slot in drawn.slots:
        assert torch.equal(picked.flat(slot), drawn.flat(slot)[numbers])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
def test_numbers_of_rows_may_be_of_any_width(net: nn.Sequential, dtype: torch.dtype) -> None:
    drawn = noisynet.draw(net, rows=5)
    order = torch.tensor([3, 0, 4, 2, 1])
    for index in (order.to(dtype), order.to(dtype).numpy()):
        assert torch.equal(drawn[index].flats[0], drawn.flats[0][order])


def test_a_shuffled_minibatch_repeats_what_the_rows_did_when_acting(net: nn.Sequential) -> None:
    """In PPO the ratio before the first update must be 1: the policy learned about acted."""
    times, environments = 5, 4
    noisynet.hold(net, rows=environments)
    observations = torch.randn(times, environments, 3)
    with torch.no_grad():
        acted = torch.stack([net(observation).log_softmax(-1) for observation in observations])
    rollout_draw = noisynet.held(net)
    noisynet.resample(net)

    order = torch.randperm(times * environments)
    flat_observations, flat_acted = observations.flatten(0, 1), acted.flatten(0, 1)
    for minibatch in order.split(7):
        with noisynet.using(net, rollout_draw[minibatch % environments]):
            learned = net(flat_observations[minibatch]).log_softmax(-1)
        torch.testing.assert_close(learned, flat_acted[minibatch], rtol=0, atol=1e-6)
        ratio = (learned - flat_acted[minibatch]).exp()
        torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=2e-6)
    # The check sees the fault: under the draw made since, the ratio is far from 1.
    other = net(observations).log_softmax(-1).detach()
    assert float((other - acted).abs().mean()) > 0.01


def test_a_draw_moves_and_converts(net: nn.Sequential) -> None:
    drawn = noisynet.draw(net, rows=2)
    double = drawn.to(torch.float64)
    assert [flat.dtype for flat in double.flats] == [torch.float64]
    assert equal(double.to(torch.float32), drawn)
    assert drawn.to("meta").flats[0].is_meta
    x = torch.randn(2, 3)
    with noisynet.using(net, drawn):
        expected = net(x)
    net.double()
    with noisynet.using(net, double):
        torch.testing.assert_close(net(x.double()).float(), expected)


def test_a_draw_is_pickled_by_value(net: nn.Sequential, tmp_path: Any) -> None:
    drawn = noisynet.draw(net, rows=2)
    drawn.flats[0].share_memory_()
    copies = [pickle.loads(pickle.dumps(drawn))]
    torch.save(drawn, tmp_path / "draw.pt")
    copies.append(torch.load(tmp_path / "draw.pt", weights_only=False))
    for copy in copies:
        assert equal(copy, drawn)
        assert copy.slots == drawn.slots
        assert not copy.flats[0].is_shared()
        copy.flats[0].zero_()
        assert not equal(copy, drawn)


def test_clone_has_memory_of_its_own(net: nn.Sequential) -> None:
    drawn = noisynet.draw(net)
    copy = drawn.clone()
    kept = [flat.clone() for flat in drawn.flats]
    copy.flats[0].zero_()
    assert all(torch.equal(a, b) for a, b in zip(drawn.flats, kept, strict=True))


def test_a_draw_is_frozen(net: nn.Sequential) -> None:
    drawn = noisynet.draw(net)
    with pytest.raises(dataclasses.FrozenInstanceError):
        drawn.flats = ()


def test_several_modules_give_a_tuple(noise: str) -> None:
    online, target = new_net(noise), new_net(noise)
    draws = noisynet.draw(online, target, rows=3)
    assert [drawn.rows for drawn in draws] == [3, 3]
    assert not equal(*draws)


def test_noise_drawn_under_inference_mode_can_be_learned_with(net: nn.Sequential) -> None:
    """Acting often runs under inference_mode, and the rollout's own draw is then learned with."""
    x: Tensor = torch.randn(3, 3)
    with torch.inference_mode():
        noisynet.hold(net, rows=3)
        noisynet.resample(net)
        noisynet.resample(net, where=[True, False, True])
        value, held = noisynet.draw(net), noisynet.held(net)

    def gradient() -> Tensor:
        net.zero_grad()
        net(x).sum().backward()
        return net[4].weight_sigma.grad.clone()

    by_state = gradient()
    with noisynet.using(net, held):
        assert torch.equal(gradient(), by_state)
    with noisynet.using(net, value):
        assert not torch.equal(gradient(), by_state)
    noisynet.hold(net, static=True)
    with torch.inference_mode():
        noisynet.resample(net)
    assert float(gradient().norm()) > 0


def saved_and_loaded(drawn: Draw) -> Draw:
    file = io.BytesIO()
    torch.save(drawn, file)
    file.seek(0)
    return torch.load(file)


@pytest.mark.parametrize(
    "make",
    [
        lambda drawn: drawn[torch.tensor([2, 0, 1])][[1, 2, 0]],
        lambda drawn: drawn[torch.tensor([True, True, True])],
        lambda drawn: drawn[:],
        lambda drawn: drawn.clone(),
        lambda drawn: drawn.to(torch.float64).to(torch.float32),
        deepcopy,
        lambda drawn: pickle.loads(pickle.dumps(drawn)),
        saved_and_loaded,
    ],
    ids=["index", "mask", "slice", "clone", "to", "deepcopy", "pickle", "load"],
)
def test_what_a_draw_becomes_under_inference_mode_can_be_learned_with(
    net: nn.Sequential, make: Callable[[Draw], Draw]
) -> None:
    drawn = noisynet.draw(net, rows=3)
    with torch.inference_mode():
        made = make(drawn)
    assert equal(made, drawn)
    gradients = []
    for one in (drawn, made):
        net.zero_grad()
        with noisynet.using(net, one):
            net(torch.ones(3, 3)).sum().backward()
        gradients.append(net[4].weight_sigma.grad)
    assert torch.equal(*gradients)


def test_an_empty_list_picks_no_row(net: nn.Sequential) -> None:
    drawn = noisynet.draw(net, rows=4)[[]]
    assert drawn.rows == 0
    with noisynet.using(net, drawn):
        assert net(torch.zeros(0, 3)).shape == (0, 4)


def test_a_saved_draw_is_read_as_tensors_are(tmp_path: Path) -> None:
    """`torch.load` takes nothing but tensors and what is known to be as harmless."""
    net = nn.ModuleList([NoisyLinear(3, 2), noisynet.NoisyGRUCell(3, 2, noise="independent")])
    drawn = noisynet.draw(net, rows=2)
    torch.save({"draw": drawn}, tmp_path / "draw.pt")
    loaded = torch.load(tmp_path / "draw.pt", weights_only=True)["draw"]
    assert loaded.slots == drawn.slots
    for flat, expected in zip(loaded.flats, drawn.flats, strict=True):
        assert torch.equal(flat, expected)
