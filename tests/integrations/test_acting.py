"""Weights that are made once for the forwards of a rollout: the same outputs, never old ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import noisynet
from noisynet.control import scale
from noisynet.integrations.acting import ActingWeights


def network() -> Any:
    torch.manual_seed(0)
    net = noisynet.noisify(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)))
    noisynet.hold(net)
    return net


def steps(net: Any) -> None:
    with torch.no_grad():
        net[0].weight_sigma.add_(0.1)


def loads(net: Any) -> None:
    net.load_state_dict({name: value + 1 for name, value in net.state_dict().items()})


def replaces(net: Any) -> None:
    net[2].weight = nn.Parameter(torch.ones(2, 8))


def sets_data(net: Any) -> None:
    vector = nn.utils.parameters_to_vector(net.parameters())
    nn.utils.vector_to_parameters(vector + 1, net.parameters())


CHANGES: list[Callable[[Any], Any]] = [
    steps, loads, replaces, sets_data, noisynet.resample, noisynet.hold,
    lambda net: scale(net, 0.3), lambda net: net[0].noise_state.held.zero_(),
]  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("change", CHANGES)
def test_outputs_are_the_layers_own_before_and_after_a_change(change: Callable[[Any], Any]) -> None:
    net, seen = network(), torch.randn(5, 4)
    acting = ActingWeights(net)
    for _ in range(2):
        with acting.used():
            before = net(seen)
        assert torch.equal(before, net(seen))
    change(net)
    with acting.used():
        after = net(seen)
    assert torch.equal(after, net(seen))
    assert not torch.equal(before, after)


def test_they_are_made_once() -> None:
    net, made = network(), []
    for layer in (net[0], net[2]):
        own = layer.effective_weight
        layer.effective_weight = lambda own=own, **given: made.append(0) or own(**given)
    acting = ActingWeights(net)
    with torch.no_grad():
        for _ in range(3):
            with acting.used():
                net(torch.randn(5, 4))
    assert len(made) == 2


@pytest.mark.parametrize("kind", ["factorised", "independent"])
def test_they_are_made_again_in_the_same_memory(kind: Any) -> None:
    net, seen = noisynet.noisify(nn.Linear(4, 8), noise=kind), torch.randn(5, 4)
    acting = ActingWeights(net)
    places: list[int] = []
    own = net.effective_weight

    def told(**given: Any) -> Any:
        weight, bias = own(**given)
        places.append(weight.data_ptr())
        return weight, bias

    net.effective_weight = told
    for _ in range(3):
        noisynet.hold(net)
        # Made in inference_mode first, and changed outside it.
        with torch.inference_mode(not places), torch.no_grad(), acting.used():
            found = net(seen)
        assert torch.equal(found, net(seen))
    assert len(places) == 3
    assert len(set(places)) == 1
    net, seen = net.double(), seen.double()
    with torch.no_grad(), acting.used():
        found = net(seen)
    assert torch.equal(found, net(seen))


def test_other_states_and_forwards_that_learn_are_left_alone() -> None:
    net, seen = network(), torch.randn(3, 4)
    acting = ActingWeights(net)
    with acting.used():
        net(seen).sum().backward()
    assert net[0].weight_sigma.grad is not None
    with torch.no_grad():
        with noisynet.mean_weights(net):
            mean = net(seen)
            with acting.used():
                assert torch.equal(net(seen), mean)
        noisynet.hold(net, rows=3)
        with acting.used(), pytest.raises(ValueError, match="3 rows"):
            net(seen[:2])
        noisynet.release(net)
        with acting.used():
            assert not torch.equal(net(seen), net(seen))


def test_an_error_and_a_copy_leave_nothing_behind() -> None:
    net = network()
    acting = ActingWeights(net)
    with pytest.raises(RuntimeError, match="stop"), torch.no_grad(), acting.used():
        raise RuntimeError("stop")
    assert "forward" not in vars(net[0])
    with torch.no_grad(), acting.used(), acting.used():  # the inner one changes nothing
        net(torch.ones(1, 4))
    both = copy.deepcopy({"net": net, "acting": acting})
    with torch.no_grad():
        both["net"][0].weight.zero_()
        with both["acting"].used():
            found = both["net"](torch.ones(1, 4))
        assert torch.equal(found, both["net"](torch.ones(1, 4)))
        with acting.used():
            own = net(torch.ones(1, 4))
        with both["acting"].used():
            both["net"](torch.ones(1, 4))
        with acting.used():
            assert torch.equal(net(torch.ones(1, 4)), own)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["factorised", "independent"])
@pytest.mark.parametrize("rows", [None, 3])
def test_a_weight_is_built_in_the_memory_that_is_given(kind: Any, rows: int | None) -> None:
    layer = noisynet.noisify(nn.Linear(4, 8), noise=kind)
    noisynet.hold(layer, rows=rows)
    expected = layer.effective_weight()
    memory = torch.full_like(expected[0], torch.nan)
    weight, bias = layer.effective_weight(memory=memory)
    assert weight is memory
    assert torch.equal(weight, expected[0])
    assert torch.equal(bias, expected[1])
    with pytest.raises(ValueError, match=r"memory: got shape \(4, 8\), expected \((3, )?8, 4\)"):
        layer.effective_weight(memory=torch.empty(4, 8))
