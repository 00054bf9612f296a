"""What is measured and how the scale moves: by hand, and the rules of the paper in full."""

from __future__ import annotations

import math

import pytest
import torch

from noisynet.control import (
    ActionDeviation,
    Divergence,
    EffectiveEpsilon,
    divergence_of_epsilon,
)

# Two observations, two draws. The first draw changes the second row's action, the other none.
NOISY_KBA = torch.tensor([[[1.0, 0.0], [2.0, 3.0]], [[1.0, 0.5], [2.0, 1.0]]])
MEAN_BA = torch.tensor([[1.0, 0.0], [2.0, 1.0]])


def test_the_share_of_changed_actions_and_its_step() -> None:
    goal = EffectiveEpsilon(0.1, gain=0.2)
    assert goal.measure(NOISY_KBA, MEAN_BA) == 0.25
    # Relative errors: 0, half too little, twice as much, and far too much, which is cut.
    assert goal.step(2.0, 0.1) == 2.0
    assert goal.step(2.0, 0.05) == pytest.approx(2.0 * math.exp(0.2 * 0.5))
    assert goal.step(2.0, 0.2) == pytest.approx(2.0 * math.exp(-0.2))
    assert goal.step(2.0, 0.5) == pytest.approx(2.0 * math.exp(-0.2 * 4))
    assert goal.step(2.0, 0.9) == pytest.approx(2.0 / math.e)
    assert goal.step(2.0, 0.0) == pytest.approx(2.0 * math.exp(0.2))


def test_the_deviation_of_actions_is_that_of_plappert() -> None:
    # Differences: (0, 0), (0, 2); (0, 0.5), (0, 0): their mean square is (4 + 0.25) / 8.
    distance = ActionDeviation(0.2).measure(NOISY_KBA, MEAN_BA)
    assert distance == pytest.approx(math.sqrt(4.25 / 8))
    # Over one draw it is √(1/N Σ_i E_s[(π(s)_i - π̃(s)_i)²]), arXiv 1706.01905.
    noisy, mean = NOISY_KBA[0], MEAN_BA
    by_the_paper = math.sqrt(
        sum(float(((mean[:, i] - noisy[:, i]) ** 2).mean()) for i in range(2)) / 2
    )
    assert ActionDeviation(0.2).measure(noisy[None], mean) == pytest.approx(by_the_paper)


def test_plappert_s_rule_over_some_measurements_by_hand() -> None:
    goal = ActionDeviation(0.2)
    scale = 0.05
    seen = []
    for distance in (0.1, 0.19, 0.2, 0.21, 0.5, 0.1):
        scale = goal.step(scale, distance)
        seen.append(scale)
    up = 1.01
    expected = [0.05 * up, 0.05 * up**2, 0.05 * up**3, 0.05 * up**2, 0.05 * up, 0.05 * up**2]
    assert seen == pytest.approx(expected, rel=1e-12)
    assert Divergence(0.2, factor=2.0).step(1.0, 0.3) == 0.5


def test_the_divergence_of_softmax_policies_by_hand() -> None:
    mean = torch.tensor([[0.0, math.log(3.0)]])
    noisy = torch.tensor([[[0.0, 0.0]]])
    # π = (1/4, 3/4), π̃ = (1/2, 1/2).
    expected = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert Divergence(0.1).measure(noisy, mean) == pytest.approx(expected)
    assert Divergence(0.1).measure(mean[None], mean) == pytest.approx(0, abs=1e-7)


def test_a_divergence_is_not_below_0_by_rounding() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        mean = torch.randn(32, 4, generator=generator)
        noisy = mean + 1e-5 * torch.randn(8, 32, 4, generator=generator)
        assert Divergence(0.1).measure(noisy, mean) >= 0
    assert math.isnan(Divergence(0.1).measure(noisy * math.nan, mean))


@pytest.mark.parametrize(("epsilon", "actions"), [(0.1, 2), (0.05, 4), (0.5, 18)])
def test_the_divergence_of_epsilon_greedy_is_that_of_its_definition(
    epsilon: float, actions: int
) -> None:
    greedy = torch.zeros(actions, dtype=torch.float64)
    greedy[0] = 1
    explores = torch.full((actions,), epsilon / actions, dtype=torch.float64)
    explores[0] += 1 - epsilon
    kl = float(torch.special.xlogy(greedy, greedy / explores).sum())
    assert divergence_of_epsilon(epsilon, actions) == pytest.approx(kl)


def test_bad_goals_are_one_line() -> None:
    for wanted in (0, 1, -0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"effective_epsilon: got .* between 0 and 1"):
            EffectiveEpsilon(wanted)
    for gain in (0, 1.01):
        with pytest.raises(ValueError, match=f"gain: got {gain}, expected a number above 0, at"):
            EffectiveEpsilon(0.1, gain=gain)
    with pytest.raises(ValueError, match="action_deviation: got 0, expected a finite number above"):
        ActionDeviation(0)
    with pytest.raises(ValueError, match=r"factor: got 1\.0, expected a number above 1"):
        ActionDeviation(0.2, factor=1.0)
    with pytest.raises(ValueError, match="divergence: got -1"):
        Divergence(-1)
    with pytest.raises(ValueError, match="epsilon: got 1, expected a number between 0 and 1"):
        divergence_of_epsilon(1, 4)
    with pytest.raises(ValueError, match="actions: got 1"):
        divergence_of_epsilon(0.1, 1)
    for goal in (EffectiveEpsilon(0.1, gain=1), Divergence(0.1)):
        with pytest.raises(ValueError, match="expected at least 1 draw, 1 row and 2 actions"):
            goal.measure(torch.zeros(1, 2, 1), torch.zeros(2, 1))
