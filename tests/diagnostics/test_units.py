"""Dormant units, norm and rank of the features: by hand, and against a slow version."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import noisynet
from noisynet.diagnostics.hidden_layer import HiddenLayer
from noisynet.diagnostics.unit_flow import hidden_layers
from noisynet.diagnostics.units import effective_rank


def flow(net: nn.Module, *arguments: Any) -> dict[str, HiddenLayer]:
    return hidden_layers(net, lambda: net(*arguments))


def ways(net: nn.Module, *arguments: Any) -> dict[str, dict[str, int]]:
    """Who reads each layer's units, and how many inputs a unit is there."""
    return {
        name: {reader: one.block for reader, one in layer.readers.items()}
        for name, layer in flow(net, *arguments).items()
    }


def by_hand() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, -1.0], [0.0, 0.04]]))
        net[0].bias.zero_()
    return net


def test_scores_of_three_units_by_hand() -> None:
    batch = torch.tensor([[1.0, 1.0], [3.0, 1.0]])
    # Activations (1, 0, 0.04) and (3, 0, 0.04): means 2, 0 and 0.04, whose mean is 0.68.
    found = noisynet.units(by_hand(), batch)["0"]
    assert found.scores.tolist() == pytest.approx([2 / 0.68, 0, 0.04 / 0.68])
    assert found.dormant == pytest.approx(1 / 3)
    assert found.norm == pytest.approx((math.hypot(1, 0.04) + math.hypot(3, 0.04)) / 2)
    assert found.rank is None
    assert noisynet.units(by_hand(), batch, threshold=0.06)["0"].dormant == pytest.approx(2 / 3)


def test_a_layer_without_any_activity_is_dormant_as_a_whole() -> None:
    found = noisynet.units(by_hand(), torch.zeros(4, 2), rank=True)["0"]
    assert found.scores.tolist() == [0, 0, 0]
    assert (found.dormant, found.norm, found.rank) == (1, 0, 0)


def slow_scores(activation: Tensor, unit_dimension: int) -> list[float]:
    """Definition 1 of arXiv 2302.12902, value by value in float64."""
    moved = activation.double().movedim(unit_dimension, 0)
    means = [sum(abs(float(v)) for v in unit.flatten()) / unit.numel() for unit in moved]
    layer = sum(means) / len(means)
    return [one / layer if layer else 0.0 for one in means]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**20), st.integers(1, 5), st.booleans())
def test_they_are_the_definition_of_the_same_activations(
    seed: int, rows: int, normalised: bool
) -> None:
    torch.manual_seed(seed)
    norm = [nn.GroupNorm(1, 6)] if normalised else []
    net = nn.Sequential(
        nn.Conv2d(2, 6, 3), *norm, nn.ReLU(), nn.Flatten(), nn.Linear(54, 7), nn.ReLU(),
        nn.Linear(7, 2),
    )  # fmt: skip
    with torch.no_grad():
        net[0].bias.sub_(0.4)  # some filters never answer
    images = torch.randn(rows, 2, 5, 5)
    found = noisynet.units(net, images)
    place = 2 + len(norm)
    with torch.no_grad():
        of_filters, of_hidden = net[:place](images), net[: place + 3](images)
    assert list(found) == ["0", str(place + 1)]
    for one, activation, dimension in zip(
        found.values(), (of_filters, of_hidden), (1, 1), strict=True
    ):
        slow = slow_scores(activation, dimension)
        assert one.scores.tolist() == pytest.approx(slow, rel=1e-5, abs=1e-7)
        assert one.dormant == sum(score <= 0.025 for score in slow) / len(slow)
        assert one.norm == pytest.approx(float(activation.flatten(1).norm(dim=1).mean()), rel=1e-5)


def test_effective_rank_by_hand() -> None:
    # Singular values 3, 1 and 0.03: 3 + 1 make up 99.26 % of their sum.
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0, 0.03]))) == 2
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0, 0.05]))) == 3
    # 99 %, which rounding makes a little more or less.
    torch.manual_seed(0)
    left, right = torch.linalg.qr(torch.randn(2, 200, 3, 3).double()).Q
    turned = left * torch.tensor([66.0, 33.0, 1.0]) @ right
    assert {effective_rank(one) for one in turned} == {2}
    assert effective_rank(torch.ones(4, 3)) == 1
    assert effective_rank(torch.zeros(4, 3)) == 0
    assert effective_rank(torch.full((4, 3), torch.nan)) == 0
    batch = torch.randn(32, 4)
    assert noisynet.units(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)), batch,
                          rank=True)["0"].rank in range(1, 9)  # fmt: skip


def test_a_unit_that_only_the_noise_wakes_is_awake() -> None:
    net = noisynet.noisify(by_hand(), where=lambda name, _: name == "0")
    batch = torch.tensor([[1.0, 1.0], [3.0, 1.0]])
    assert noisynet.units(net, batch, draws=0)["0"].scores[1] == 0
    with torch.no_grad():
        net.get_parameter("0.weight_sigma")[1] = 10.0
    generator = torch.Generator().manual_seed(0)
    assert noisynet.units(net, batch, draws=0)["0"].scores[1] == 0
    noisy = noisynet.units(net, batch, draws=8, generator=generator)["0"]
    assert noisy.scores[1] > 0.025
    # The mean over draws is that of each by itself.
    generator.manual_seed(0)
    activity = torch.zeros(3)
    for _ in range(8):
        with noisynet.using(net, noisynet.draw(net, generator=generator)):
            activity += net[:2](batch).mean(0).detach() / 8
    assert noisy.scores.tolist() == pytest.approx((activity / activity.mean()).tolist(), rel=1e-5)


def test_measuring_leaves_model_and_generators_alone() -> None:
    net = nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 2)
    )
    net = noisynet.noisify(net)
    noisynet.hold(net, rows=3)
    before = {name: one.clone() for name, one in net.state_dict().items()}
    held, state = noisynet.held(net), torch.get_rng_state()
    noisynet.units(net, torch.randn(5, 4), generator=torch.Generator())
    torch.manual_seed(0)
    torch.set_rng_state(state)
    noisynet.units(net, torch.ones(5, 4), generator=torch.Generator())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one, net.state_dict()[name]) for name, one in before.items())
    after = noisynet.held(net)
    assert held is not None
    assert after is not None
    assert torch.equal(held.flats[0], after.flats[0])
    assert not any(module._forward_hooks for module in net.modules())


def test_a_batch_without_observations_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"^batch: got no observation, expected at least one$"):
        noisynet.units(by_hand(), torch.zeros(0, 2))


@pytest.mark.parametrize("threshold", [-0.1, 1.0, 2, math.nan, "a", True])
def test_another_threshold_is_one_line(threshold: Any) -> None:
    with pytest.raises(ValueError, match=r"^threshold: got .*, expected a number in \[0, 1\)$"):
        noisynet.units(by_hand(), torch.ones(2, 2), threshold=threshold)


# Where the units go


class Functional(nn.Module):
    """As much is written as functions as may be."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.second = nn.Conv2d(4, 2, 1)
        self.hidden = nn.Linear(2, 5)
        self.value, self.advantage = nn.Linear(5, 1), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(torch.relu(self.first(x)), 2)
        x = self.second(x).relu_().view(len(x), -1)
        x = functional.layer_norm(self.hidden(x), (5,)).relu()
        advantage = self.advantage(x)
        return self.value(x) + advantage - advantage.mean(-1, keepdim=True)


def test_units_are_followed_through_functions() -> None:
    found = ways(Functional(), torch.randn(3, 1, 4, 4))
    assert found == {
        "first": {"second": 1},
        "second": {"hidden": 1},
        "hidden": {"value": 1, "advantage": 1},
    }


def test_a_filter_is_a_block_of_inputs_behind_flattening() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
    assert ways(net, torch.randn(2, 1, 5, 5)) == {"0": {"3": 9}}
    # Unit 2 is what the linear layer reads as inputs 18 to 26.
    x, images = torch.zeros(1, 36), torch.randn(1, 1, 5, 5)
    x[:, 18:27] = net[:3](images)[:, 18:27]
    assert torch.equal(net[:2](images)[0, 2].flatten(), x[0, 18:27])


class Sum(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Any:
        before = self.first(x)
        h = before.relu()
        if self.how == "skip":
            return self.last(before + self.second(h))
        if self.how == "linear":
            return self.last(before) + self.last(h)
        if self.how == "add":
            return self.last(h + self.second(h).relu())
        if self.how == "div":
            return self.last(self.second(x) / h)
        if self.how == "norm":
            return self.last(self.norm(h))
        if self.how == "return":
            return self.last(h), h
        return self.last(torch.cat([h[:, 2:], h[:, :2]], -1))


@pytest.mark.parametrize(
    ("how", "by"),
    [
        ("add", "add"),
        ("skip", "add"),
        ("linear", "'last', without its activation"),
        ("norm", "a norm behind its activation"),
        ("return", "the network returns it"),
        ("cat", "__getitem__"),
        ("div", "div"),
    ],
)
def test_what_mixes_units_is_named(how: str, by: str) -> None:
    layer = flow(Sum(how), torch.randn(3, 4))["first"]
    assert layer.unknown is not None
    assert by in layer.unknown
    assert layer.rows == 3  # measured all the same


class Read(nn.Module):
    """Units that another kind of layer reads."""

    def __init__(self, reader: nn.Module) -> None:
        super().__init__()
        self.first, self.reader = nn.Linear(4, 4), reader

    def forward(self, x: Tensor) -> Any:
        h = self.first(x).relu()
        if isinstance(self.reader, nn.MultiheadAttention):
            return self.reader(h, h, h)[0]
        return self.reader(h)


READERS = {
    "MultiheadAttention": lambda: nn.MultiheadAttention(4, 2),
    "NoisyMultiheadAttention": lambda: noisynet.NoisyMultiheadAttention(4, 2),
    "LSTM": lambda: nn.LSTM(4, 3),
    "NoisyLSTM": lambda: noisynet.NoisyLSTM(4, 3),
    "NoisyGRU": lambda: noisynet.NoisyGRU(4, 3),
    "NoisyRNN": lambda: noisynet.NoisyRNN(4, 3),
    "NoisyConvTranspose1d": lambda: noisynet.NoisyConvTranspose1d(5, 2, 1),
}


@pytest.mark.parametrize("kind", READERS)
def test_a_layer_of_another_kind_is_named_and_has_no_units(kind: str) -> None:
    net = Read(READERS[kind]())
    found = flow(net, torch.randn(3, 5, 4))
    assert list(found) == ["first"]
    assert found["first"].unknown == f"'reader', a {kind}"
    assert found["first"].values == 15


def test_a_layer_whose_weight_is_parametrised_is_measured_and_named() -> None:
    norm = nn.utils.parametrizations.spectral_norm
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    norm(net[2])
    found = flow(net, torch.randn(5, 4))
    assert found["0"].unknown == "'2', which keeps more than weights and biases"
    assert found["2"].unknown == "itself, which keeps more than weights and biases"
    assert found["0"].rows == found["2"].rows == 5


def test_a_product_reads_the_units_of_both_its_factors() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.last = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            right = self.right(x).relu().unsqueeze(0).expand(2, -1, -1)
            return self.last(self.left(x).relu() * right)

    # A gate of two layers before their activation has no units of either.
    class Gate(Product):
        def forward(self, x: Tensor) -> Tensor:
            return self.last((self.left(x) * self.right(x)).relu())

    assert ways(Gate(), torch.randn(5, 3)) == {}
    assert ways(Product(), torch.randn(5, 3)) == {"left": {"last": 1}, "right": {"last": 1}}
