"""Noise held at a target: where it settles, that it is stable, and what it leaves alone."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import noisynet
from noisynet.control import EffectiveEpsilon, scale, target

NORMAL = NormalDist()


class OneGap(nn.Module):
    """Two values whose gap is 1, with Gaussian noise of deviation `scale` on one of them.

    Effective ε is then Φ(-1 / scale), known exactly.
    """

    def __init__(self) -> None:
        super().__init__()
        self.noisy = noisynet.NoisyLinear(1, 1, noise="independent", sigma0=1.0)
        with torch.no_grad():
            self.noisy.weight.zero_()
            self.noisy.bias.zero_()
            self.noisy.weight_sigma.zero_()

    def forward(self, observation: Tensor) -> Tensor:
        return torch.cat([torch.ones_like(observation), self.noisy(observation)], -1)


def settled(controller: Any, observations: Tensor, updates: int) -> None:
    for _ in range(updates):
        controller.update(observations)


@pytest.mark.parametrize(("start", "wanted"), [(0.05, 0.05), (20.0, 0.05), (1.0, 0.2)])
def test_it_finds_the_scale_that_is_known(start: float, wanted: float) -> None:
    net = OneGap()
    scale(net, start)
    # A draw changes all rows alike: its share is 0 or 1, and only their mean tells.
    controller = target(net, effective_epsilon=wanted, draws=40)
    observations = torch.zeros(1, 1)
    settled(controller, observations, 60)
    found = []
    for _ in range(80):
        controller.update(observations)
        found.append(scale(net))
    # ε = Φ(-1 / s) = wanted.
    expected = -1 / NORMAL.inv_cdf(wanted)
    assert math.exp(sum(map(math.log, found)) / 80) == pytest.approx(expected, rel=0.15)
    realised = sum(NORMAL.cdf(-1 / one) for one in found) / 80
    assert realised == pytest.approx(wanted, rel=0.2)


@given(
    wanted=st.floats(0.005, 0.3),
    start=st.floats(0.05, 50),
    gain=st.floats(0.05, 0.25),
)
def test_without_scatter_the_loop_is_stable_and_does_not_swing(
    wanted: float, start: float, gain: float
) -> None:
    # The plant by its formula: what the docstring says of κ < 1 / gain, up to κ = 7.4 at 0.005.
    goal, now = EffectiveEpsilon(wanted, gain), start
    errors = []
    for _ in range(1000):
        measured = NORMAL.cdf(-1 / now)
        errors.append(measured - wanted)
        now = goal.step(now, measured)
    assert NORMAL.cdf(-1 / now) == pytest.approx(wanted, rel=0.01)
    z = -NORMAL.inv_cdf(wanted)
    if gain * z * NORMAL.pdf(z) / wanted < 0.9:
        # Near the target it comes from one side.
        near = [one for one in errors if abs(one) < 0.1 * wanted]
        signs = {one > 0 for one in near if abs(one) > 1e-9 * wanted}
        assert len(signs) <= 1


def test_the_sensitivity_that_the_docstring_names() -> None:
    for wanted, expected in ((0.05, 3.4), (0.005, 7.4)):
        z = -NORMAL.inv_cdf(wanted)
        assert z * NORMAL.pdf(z) / wanted == pytest.approx(expected, abs=0.06)


def network(**options: Any) -> nn.Module:
    torch.manual_seed(2)
    layers = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3))
    return noisynet.noisify(layers, **options)


def test_a_network_is_held_where_noisynet_s_own_measure_sees_it() -> None:
    net, observations = network(), torch.randn(256, 5)
    controller = target(net, effective_epsilon=0.05)
    settled(controller, observations, 80)
    found = []
    for _ in range(20):
        controller.update(observations)
        found.append(noisynet.behaviour(net, observations, draws=32).effective_epsilon)
    assert sum(found) / 20 == pytest.approx(0.05, rel=0.2)
    assert noisynet.doctor(net, observations)["control"].message.startswith(
        "target, effective ε 0.05: the scale is "
    )


def test_the_deviation_of_continuous_actions_is_held_with_noise_that_is_not_learned() -> None:
    net = network(noise="independent", sigma0=1.0, learned=False)
    scale(net, 0.5)
    observations = torch.randn(64, 5)
    controller = target(net, action_deviation=0.2, factor=1.05)
    settled(controller, observations, 150)
    found = []
    for _ in range(40):
        found.append(controller.update(observations))
    assert sum(found) / 40 == pytest.approx(0.2, rel=0.15)
    assert [one.requires_grad for one in noisynet.sigma_parameters(net)] == [False] * 4


def test_one_update_is_plappert_s_procedure_by_hand() -> None:
    net = network(noise="independent", sigma0=1.0, learned=False)
    scale(net, 0.1)
    observations = torch.randn(16, 5)
    controller = target(net, action_deviation=0.2, draws=1)
    noises: list[Tensor] = []

    def by_hand() -> float:
        # θ̃ = θ + σ ε, every weight and bias with an ε of its own.
        number = hash((0, 0)) & (2**63 - 1)
        generator = torch.Generator().manual_seed(number)
        drawn = noisynet.draw(net, rows=1, generator=generator)[0]
        hidden, out = drawn.layer("0"), drawn.layer("2")
        noises.extend([hidden.weight_noise(), out.weight_noise()])
        x = observations @ (net[0].weight + 0.1 * hidden.weight_noise()).T
        x = (x + net[0].bias + 0.1 * hidden.bias_noise()).relu()
        x = x @ (net[2].weight + 0.1 * out.weight_noise()).T
        perturbed = x + net[2].bias + 0.1 * out.bias_noise()
        with noisynet.mean_weights(net):
            difference = perturbed - net(observations)
        return float(difference.detach().square().mean().sqrt())

    expected = by_hand()
    assert controller.update(observations) == pytest.approx(expected, rel=1e-4)
    assert scale(net) == pytest.approx(0.1 * 1.01 if expected <= 0.2 else 0.1 / 1.01)


def test_measuring_leaves_noise_buffers_and_generators_alone() -> None:
    net = nn.Sequential(nn.BatchNorm1d(5), network())
    noisynet.hold(net, rows=6)
    observations = torch.randn(6, 5)
    state, held = torch.get_rng_state(), noisynet.held(net)
    mean = net[0].running_mean.clone()
    target(net, effective_epsilon=0.1).update(observations)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(net[0].running_mean, mean)
    assert torch.equal(noisynet.held(net).flats[0], held.flats[0])


def test_followers_get_the_same_scale_and_a_state_goes_on() -> None:
    observations = torch.randn(32, 5)

    def loop(updates: int, state: dict[str, Any] | None = None, seed: int = 4) -> Any:
        net = network()
        follower = copy.deepcopy(net)
        controller = target(net, follower, effective_epsilon=0.05, seed=seed)
        if state is not None:
            controller.load_state_dict(state)
        settled(controller, observations, updates)
        assert scale(follower) == scale(net) == controller.scale
        return controller

    whole, half = loop(10), loop(5)
    assert loop(5, half.state_dict()).scale == whole.scale
    assert half.scale != whole.scale != loop(10, seed=5).scale
    assert (whole.measurements, half.measurements) == (10, 5)  # each has draws of its own


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))], ids=["deep", "pickle"]
)
def test_a_copied_controller_measures_the_copied_network(copied: Callable[[Any], Any]) -> None:
    observations, net = torch.randn(64, 5), network()
    net_copy, controller = copied((net, target(net, effective_epsilon=0.05)))
    with torch.no_grad():
        net[2].weight.zero_(), net[2].weight_sigma.zero_(), net[2].bias_sigma.zero_()
    assert controller.update(observations) > 0  # no noise is left in the network that was copied
    assert scale(net_copy) == controller.scale != scale(net) == 1


def test_what_cannot_be_reached_stops_at_the_bound_and_says_so() -> None:
    net = network()
    with torch.no_grad():
        net[2].bias[1] += 1e9
    controller = target(net, effective_epsilon=0.05, gain=1.0, bounds=(0.5, 2.0))
    settled(controller, torch.randn(8, 5), 5)
    assert controller.at_bound
    assert scale(net) == 2.0
    said = noisynet.doctor(net)["control"].message
    assert said == "target, effective ε 0.05, at its bound: the scale is 2 now"
    assert [controller.adjust(1.0) for _ in range(2)] == [2.0 / math.e, 0.5]
    assert controller.at_bound


def test_a_measurement_from_elsewhere() -> None:
    net = network()
    controller = target(net, effective_epsilon=0.05, gain=0.1)
    assert controller.adjust(0.0) == pytest.approx(math.exp(0.1))
    assert scale(net) == pytest.approx(math.exp(0.1))
    with pytest.raises(ValueError, match="measured: got nan"):
        controller.adjust(math.nan)


def test_values_of_another_shape_are_made_by_a_function() -> None:
    net = network()
    observations = torch.randn(8, 5)
    plain = target(net, effective_epsilon=0.05, draws=4).measure(observations)
    nested = target(net, effective_epsilon=0.05, draws=4, values=lambda output: output * 2).measure(
        (observations,)
    )
    assert plain == nested


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "target: got 0 targets, expected one of effective_epsilon, action_deviation and"),
        ({"effective_epsilon": 0.1, "action_deviation": 0.1}, "target: got 2 targets"),
        ({"effective_epsilon": 0}, "effective_epsilon: got 0, expected a number between 0 and 1"),
        ({"effective_epsilon": 1.0}, "effective_epsilon: got 1.0, expected a number between"),
        ({"effective_epsilon": math.nan}, "effective_epsilon: got nan, expected a number between"),
        ({"action_deviation": -1}, "action_deviation: got -1"),
        ({"effective_epsilon": 0.1, "draws": 0}, "draws: got 0, expected a whole number of at"),
        ({"effective_epsilon": 0.1, "bounds": (1.0, 1.0)}, "bounds: got"),
    ],
)
def test_bad_input_is_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        target(network(), **options)
    assert "\n" not in str(caught.value)


def test_a_net_without_noise_and_a_scale_of_0() -> None:
    with pytest.raises(ValueError, match="scale: got Linear, which has no noisy layer"):
        target(nn.Linear(2, 2), effective_epsilon=0.1)
    net = network()
    scale(net, 0)
    with pytest.raises(ValueError, match="scale: got 0, expected one above 0"):
        target(net, effective_epsilon=0.1)
    with pytest.raises(ValueError, match="scale: got 0, expected one above 0"):
        target(net, network(), effective_epsilon=0.1)
    assert target(network(), net, effective_epsilon=0.1).scale == scale(net) == 1
