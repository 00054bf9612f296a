"""Munchausen targets against numbers worked out by hand."""

import math

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies
from hypothesis.extra import numpy as arrays

from noisynet.agents import Munchausen, losses
from noisynet.agents.munchausen import scaled_log_policy

TAU = 0.5
# Q whose softmax over τ is (1/4, 3/4), or the other way round.
Q = torch.tensor([[0.0, TAU * math.log(3)]])
TURNED = Q.flip(-1)


def target(munchausen: Munchausen, target_t: torch.Tensor, **changed: torch.Tensor) -> torch.Tensor:
    given = {
        "return_t": torch.tensor([1.0]),
        "discount_t": torch.tensor([0.5]),
        "q_tm1": Q,
        "action_tm1": torch.tensor([0]),
        **changed,
    }
    return munchausen.target(target_t=target_t, **given)


def test_the_scaled_log_policy_is_the_temperature_times_the_logarithm() -> None:
    wanted = [[TAU * math.log(1 / 4), TAU * math.log(3 / 4)]]
    torch.testing.assert_close(scaled_log_policy(Q, TAU), torch.tensor(wanted))
    # Far apart, and at a small temperature: no overflow, and 0 for the best action.
    extreme = scaled_log_policy(torch.tensor([100.0, -100.0]), 0.03)
    torch.testing.assert_close(extreme, torch.tensor([0.0, -200.0]))


def test_the_target_of_q_values_by_hand() -> None:
    # π(·|y) = (3/4, 1/4): Σ π (Q - τ ln π) is τ ln Σ exp(Q / τ) = τ ln 4.
    found = target(Munchausen(weight=0.9, temperature=TAU), TURNED)
    wanted = 1.0 + 0.9 * TAU * math.log(1 / 4) + 0.5 * TAU * math.log(4)
    torch.testing.assert_close(found, torch.tensor([wanted]))
    likely = target(Munchausen(weight=0.9, temperature=TAU), TURNED, action_tm1=torch.tensor([1]))
    torch.testing.assert_close(likely - found, torch.tensor([0.9 * TAU * math.log(3)]))


def test_the_log_policy_counts_as_no_less_than_l0() -> None:
    # τ ln π of the action taken is -0.69.
    found = target(Munchausen(weight=0.9, temperature=TAU, least=-0.25), TURNED)
    torch.testing.assert_close(found, torch.tensor([1 - 0.9 * 0.25 + 0.5 * TAU * math.log(4)]))


def test_termination_ends_the_sum_and_leaves_the_bonus() -> None:
    found = target(Munchausen(weight=1.0, temperature=TAU), TURNED, discount_t=torch.tensor([0.0]))
    torch.testing.assert_close(found, torch.tensor([1 + TAU * math.log(1 / 4)]))


def test_the_policy_over_quantiles_is_that_of_their_mean() -> None:
    munchausen = Munchausen(weight=0.9, temperature=TAU)
    # Their mean is TURNED, with π = (3/4, 1/4): every quantile's target is moved by Σ π moved.
    moved = torch.tensor([[[-1.0, 3.0]], [[3.0, -2.0]], [[-2.0, -1.0]]])
    found = target(munchausen, TURNED + moved)
    wanted = target(munchausen, TURNED) + 0.5 * torch.tensor([[0.0], [1.75], [-1.75]])
    torch.testing.assert_close(found, wanted)


@hypothesis.given(
    q_t=arrays.arrays(np.float64, (2, 3), elements=strategies.floats(-9, 9), unique=True)
)
def test_with_no_weight_and_no_temperature_it_is_the_greedy_target(q_t: np.ndarray) -> None:
    values = torch.from_numpy(q_t)
    return_t, discount_t = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.9, 0.0]).double()
    found = Munchausen(weight=0, temperature=1e-9).target(
        return_t, discount_t, values, values, torch.tensor([0, 1])
    )
    wanted = losses.q_target(return_t, discount_t, values)
    # The entropy of a tie among three is worth τ ln 3.
    torch.testing.assert_close(found, wanted, atol=1e-8, rtol=0)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("return_t", (1, 1)), ("discount_t", (2,)), ("action_tm1", (1, 1)), ("q_tm1", (2, 2)),
     ("q_tm1", (1, 2, 1)), ("target_t", (2,)), ("target_t", (3, 2, 2)), ("target_t", (1, 3))],
)  # fmt: skip
def test_a_shape_that_would_broadcast_is_refused(name: str, shape: tuple[int, ...]) -> None:
    kind = torch.int64 if name == "action_tm1" else torch.float32
    given = {"target_t": TURNED, name: torch.zeros(shape, dtype=kind)}
    with pytest.raises(ValueError, match=r"^munchausen: .*got shape") as caught:
        target(Munchausen(temperature=TAU), **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": 0.0}, "temperature: got 0.0, expected above 0"),
        ({"temperature": 0.03, "weight": 1.1}, "weight: got 1.1, expected from 0 to 1"),
        ({"temperature": 0.03, "least": 0.5}, "least: got 0.5, expected 0 or less"),
    ],
)
def test_values_outside_their_ranges_are_one_line(options: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}$"):
        Munchausen(**options)
