"""Effective ε, entropy, spread and gap: by hand, against a slow loop, and from any loop."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

import noisynet
from noisynet.diagnostics.behaviour import measure
from noisynet.layers.outputs import outputs_of_head

# Two observations, four draws: the first changes its mind in one of them, the second in two.
NOISY_KBA = torch.tensor(
    [
        [[1.0, 0.0, 0.0], [5.0, 1.0, 0.0]],
        [[1.0, 0.0, 0.0], [5.0, 7.0, 0.0]],
        [[1.0, 2.0, 0.0], [5.0, 1.0, 9.0]],
        [[1.0, 0.0, 0.0], [5.0, 1.0, 0.0]],
    ]
)
MEAN_BA = torch.tensor([[1.0, 0.5, 0.0], [5.0, 1.0, -2.0]])


def test_figures_by_hand() -> None:
    found = measure(NOISY_KBA, MEAN_BA)
    assert found.rows["effective_epsilon"].tolist() == [0.25, 0.5]
    assert found.effective_epsilon == pytest.approx(0.375)
    entropies = [
        -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)),
        -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25)),
    ]
    assert found.rows["action_entropy"].tolist() == pytest.approx(entropies)
    assert found.rows["q_gap"].tolist() == [0.5, 4.0]
    # Deviations of (0, 0, 2, 0) and of zeros; of zeros, (1, 7, 1, 1) and (0, 0, 9, 0).
    assert found.rows["q_spread"].tolist() == pytest.approx([1.0 / 3, (3.0 + 4.5) / 3])
    figures = found.figures()
    assert figures["noise/effective_epsilon"] == pytest.approx(0.375)
    assert figures["noise/effective_epsilon/env_1"] == pytest.approx(0.5)
    assert set(figures) == {
        *(f"noise/{one}" for one in ("effective_epsilon", "action_entropy", "q_spread", "q_gap")),
        *(f"noise/effective_epsilon/env_{number}" for number in (0, 1)),
    }
    assert "noise/effective_epsilon/env_5" in found.figures(first=4)


@pytest.mark.parametrize("shape", [(4, 3), (1, 2, 3), (4, 2, 1), (4, 5, 3)])
def test_shapes_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="got Q of shape"):
        measure(torch.zeros(shape), torch.zeros(2, shape[-1]))


def network(noise: str = "factorised", sigma0: float | None = None) -> nn.Module:
    torch.manual_seed(2)
    layers = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3))
    return noisynet.noisify(layers, noise=noise, sigma0=sigma0)


@pytest.mark.parametrize("noise", ["factorised", "independent"])
def test_one_pass_over_the_head_equals_a_pass_for_each_draw(noise: str) -> None:
    net, batch = network(noise), torch.randn(6, 5)
    seeds = [torch.Generator().manual_seed(4) for _ in range(2)]
    slow = noisynet.behaviour(net, batch, draws=7, generator=seeds[0])
    fast = measure(*outputs_of_head(net, batch, draws=7, generator=seeds[1]))
    for name, row in slow.rows.items():
        torch.testing.assert_close(fast.rows[name], row)


def test_measuring_touches_neither_model_nor_generator() -> None:
    net, batch = network(), torch.randn(6, 5)
    noisynet.hold(net, rows=6)
    before, state = net(batch), torch.get_rng_state()
    noisynet.behaviour(net, batch, generator=torch.Generator().manual_seed(1))
    assert torch.equal(net(batch), before)
    assert torch.equal(torch.get_rng_state(), state)


class Regularised(nn.Module):
    """Running means, numbers of the global generator, and noise."""

    def __init__(self) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm1d(5)
        self.noisy = noisynet.NoisyLinear(5, 3)

    def forward(self, observation: Tensor) -> Tensor:
        return self.noisy(nn.functional.dropout(self.normalise(observation)))


def test_measuring_touches_neither_buffers_nor_the_numbers_of_dropout() -> None:
    net, batch = Regularised(), torch.randn(6, 5)
    buffers = dict(net.named_buffers())
    before = {name: one.clone() for name, one in buffers.items()}
    state = torch.get_rng_state()
    noisynet.behaviour(net, batch)
    noisynet.NoiseMonitor(net, every=1).step(batch)
    assert torch.equal(torch.get_rng_state(), state)
    for name, one in net.named_buffers():
        assert one is buffers[name]
        assert torch.equal(one, before[name]), name


class Distribution(nn.Module):
    """Network that returns probabilities of 7 atoms for each action, (B, A, atoms), as C51 does."""

    def __init__(self, inputs: int, actions: int = 3) -> None:
        super().__init__()
        self.noisy = noisynet.NoisyLinear(inputs, actions * 7)

    def forward(self, observation: Tensor) -> Tensor:
        return self.noisy(observation).unflatten(-1, (-1, 7)).softmax(-1)


@pytest.mark.parametrize("inputs", [5, 3])
def test_a_distribution_is_not_taken_for_more_rows(inputs: int) -> None:
    torch.manual_seed(3)
    # With as many actions as inputs its shape could be that of a sequence.
    net, batch = Distribution(inputs), torch.randn(6, inputs)
    with pytest.raises(ValueError, match=r"gave shape \(6, 3, 7\), expected values \(B, A\)"):
        noisynet.behaviour(net, batch)

    def mean(output: Tensor) -> Tensor:
        return output @ torch.arange(7.0)

    found = noisynet.behaviour(net, batch, values=mean)
    assert len(found.rows["q_gap"]) == 6
    assert found.q_gap <= 6
    figures = noisynet.NoiseMonitor(net, every=1, values=mean).step(batch)
    assert figures is not None
    assert "noise/effective_epsilon/env_5" in figures
    policy = noisynet.doctor(net, batch)["policy"]
    assert policy.status == "skipped"
    assert "(6, 3, 7)" in policy.message


def test_a_sequence_has_a_row_for_each_of_its_observations() -> None:
    found = noisynet.behaviour(network(), torch.randn(4, 2, 5))
    assert len(found.rows["q_gap"]) == 8


def test_without_noise_nothing_differs_and_far_values_are_left_alone() -> None:
    batch = torch.randn(32, 5)
    assert noisynet.behaviour(network(sigma0=0.0), batch).effective_epsilon == 0
    net = network()
    close = noisynet.behaviour(net, batch).effective_epsilon
    with torch.no_grad():
        net[2].bias[1] += 100.0
    far = noisynet.behaviour(net, batch)
    assert close > 0.1
    assert far.effective_epsilon == far.action_entropy == 0
    assert far.q_gap > 90


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="draws: got 1"):
        noisynet.behaviour(network(), torch.zeros(2, 5), draws=1)
    with pytest.raises(ValueError, match="no noisy layer"):
        noisynet.behaviour(nn.Linear(5, 2), torch.zeros(2, 5))
    with pytest.raises(ValueError, match="every: got 0"):
        noisynet.NoiseMonitor(network(), every=0)


def test_a_monitor_in_a_loop_of_one_s_own() -> None:
    def trained(monitor_every: int) -> tuple[list[dict[str, float]], Tensor]:
        net = network()
        optimizer = torch.optim.Adam(net.parameters())
        monitor = noisynet.NoiseMonitor(net, every=monitor_every, draws=4)
        heard: list[dict[str, float]] = []
        for _ in range(6):
            batch = torch.ones(4, 5)
            optimizer.zero_grad()
            net(batch).square().mean().backward()
            optimizer.step()
            figures = monitor.step(lambda batch=batch: batch)
            if figures is not None:
                heard.append(figures)
        return heard, copy.deepcopy(net[2].weight_sigma.detach())

    heard, sigma = trained(3)
    silent, without = trained(100)
    assert len(heard) == 2
    assert silent == []
    assert torch.equal(sigma, without)
    expected = {"snr/0", "sigma/2", "noise/effective_epsilon", "noise/effective_epsilon/env_3"}
    assert expected <= set(heard[0])
    assert trained(3)[0] == heard


@pytest.mark.parametrize("actions", [1, 3])
def test_a_monitor_of_continuous_actions(actions: int) -> None:
    net = noisynet.noisify(nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, actions)))
    batch = torch.randn(6, 5)
    outputs: list[Tensor] = []

    def noted(action: Tensor) -> Tensor:
        outputs.append(action)
        return action

    monitor = noisynet.NoiseMonitor(net, every=1, draws=4, values=noted, continuous=True)
    figures = monitor.step(batch)
    assert figures is not None
    assert {one for one in figures if one.startswith("noise/")} == {"noise/action_deviation"}
    mean, *noisy = outputs
    squares = [float((one - mean).square().mean()) for one in noisy]
    assert len(squares) == 4
    assert figures["noise/action_deviation"] == pytest.approx(math.sqrt(sum(squares) / 4))
    assert "snr/0" in figures


def test_dropout_does_not_count_as_noise() -> None:
    net = noisynet.noisify(
        nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 4))
    )
    observations = torch.randn(64, 4)
    noisynet.control.scale(net, 0.0)
    assert noisynet.behaviour(net, observations).effective_epsilon == 0
    noisynet.control.scale(net, 1e-6)
    assert "effective ε 0.000" in noisynet.doctor(net, observations)["policy"].message
    noisynet.control.scale(net, 1.0)
    assert noisynet.behaviour(net, observations).effective_epsilon > 0
    # Dropout has no part in the target either, which would silence the noise to make up for it.
    controller = noisynet.control.target(net, effective_epsilon=0.1)
    for _ in range(60):
        controller.update(observations)
    assert noisynet.control.scale(net) > 0.05
    net.eval()
    assert noisynet.behaviour(net, observations).effective_epsilon == pytest.approx(0.1, abs=0.06)
