"""Losses against numbers worked out by hand."""

import math
from collections.abc import Callable

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies
from hypothesis.extra import numpy as arrays

from noisynet.agents import losses


def test_q_target_takes_the_largest_value_and_stops_at_termination() -> None:
    target = losses.q_target(
        return_t=torch.tensor([1.0, 1.0]),
        discount_t=torch.tensor([0.9, 0.0]),
        q_target_t=torch.tensor([[1.0, 3.0], [5.0, 7.0]]),
    )
    assert torch.allclose(target, torch.tensor([1.0 + 0.9 * 3.0, 1.0]))


def test_double_q_target_lets_one_net_choose_and_the_other_value() -> None:
    target = losses.double_q_target(
        return_t=torch.tensor([1.0, 0.5]),
        discount_t=torch.tensor([0.9, 0.5]),
        q_target_t=torch.tensor([[1.0, 3.0], [5.0, 7.0]]),
        q_choice_t=torch.tensor([[2.0, 1.0], [0.0, 1.0]]),
    )
    assert torch.allclose(target, torch.tensor([1.0 + 0.9 * 1.0, 0.5 + 0.5 * 7.0]))


def test_td_error_reads_the_action_taken_and_sends_no_gradient_into_the_target() -> None:
    q = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    target = torch.tensor([2.5, 1.0], requires_grad=True)
    error = losses.td_error(q, torch.tensor([1, 0]), target)
    assert torch.equal(error, torch.tensor([0.5, -2.0]))
    error.sum().backward()
    assert target.grad is None
    assert q.grad is not None
    assert torch.equal(q.grad, torch.tensor([[0.0, -1.0], [-1.0, 0.0]]))


def test_huber_is_square_near_zero_and_straight_beyond_one() -> None:
    error = torch.tensor([0.0, 0.5, -1.0, 3.0])
    assert torch.allclose(losses.huber(error), torch.tensor([0.0, 0.125, 0.5, 2.5]))
    assert torch.allclose(losses.squared(error), torch.tensor([0.0, 0.125, 0.5, 4.5]))


def test_the_projection_parts_an_atom_between_its_neighbours() -> None:
    # Atoms at 0, 1, 2. r = 0.25, γ = 0.5: they move to 0.25, 0.75, 1.25.
    target = losses.categorical_projection(
        return_t=torch.tensor([0.25]),
        discount_t=torch.tensor([0.5]),
        probabilities_t=torch.tensor([[0.2, 0.3, 0.5]]),
        support=torch.tensor([0.0, 1.0, 2.0]),
    )
    wanted = [0.2 * 0.75 + 0.3 * 0.25, 0.2 * 0.25 + 0.3 * 0.75 + 0.5 * 0.75, 0.5 * 0.25]
    torch.testing.assert_close(target, torch.tensor([wanted]))


def test_the_projection_puts_everything_on_the_reward_at_termination() -> None:
    target = losses.categorical_projection(
        return_t=torch.tensor([1.0, 9.0, -9.0]),
        discount_t=torch.zeros(3),
        probabilities_t=torch.tensor([[0.2, 0.3, 0.5]]).expand(3, 3),
        support=torch.tensor([-1.0, 1.0, 3.0]),
    )
    torch.testing.assert_close(target, torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]))


@hypothesis.given(
    probabilities=arrays.arrays(np.float64, (4, 7), elements=strategies.floats(0.01, 1)),
    return_t=arrays.arrays(np.float64, (4,), elements=strategies.floats(-30, 30)),
    discount_t=arrays.arrays(np.float64, (4,), elements=strategies.floats(0, 1)),
)
def test_the_projection_is_that_of_algorithm_1(
    probabilities: np.ndarray, return_t: np.ndarray, discount_t: np.ndarray
) -> None:
    """Against arXiv 1707.06887, algorithm 1, one atom after the other, in float64."""
    probabilities /= probabilities.sum(1, keepdims=True)
    support = np.linspace(-10, 10, 7)
    gap = support[1] - support[0]
    wanted = np.zeros((4, 7))
    for row in range(4):
        for atom in range(7):
            moved = min(max(return_t[row] + discount_t[row] * support[atom], -10.0), 10.0)
            place = min(max((moved - support[0]) / gap, 0.0), 6.0)
            low, high = math.floor(place), math.ceil(place)
            if low == high:
                wanted[row, low] += probabilities[row, atom]
            else:
                wanted[row, low] += probabilities[row, atom] * (high - place)
                wanted[row, high] += probabilities[row, atom] * (place - low)
    target = losses.categorical_projection(
        *(torch.from_numpy(one) for one in (return_t, discount_t, probabilities, support))
    ).numpy()
    np.testing.assert_allclose(target, wanted, atol=1e-12)
    np.testing.assert_allclose(target.sum(1), 1, atol=1e-12)


def test_the_categorical_loss_is_the_divergence_and_has_the_gradient_of_the_cross_entropy() -> None:
    logits = torch.tensor([[[0.0, math.log(3.0)], [5.0, -5.0]]], requires_grad=True)
    target = torch.tensor([[0.5, 0.5]], requires_grad=True)
    loss = losses.categorical_loss(logits, torch.tensor([0]), target)
    # The prediction is (1/4, 3/4).
    wanted = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    torch.testing.assert_close(loss, torch.tensor([wanted]))
    loss.sum().backward()
    assert target.grad is None
    torch.testing.assert_close(logits.grad, torch.tensor([[[-0.25, 0.25], [0.0, 0.0]]]))
    certain = torch.tensor([[1.0, 0.0]])
    loss = losses.categorical_loss(logits, torch.tensor([0]), certain)
    torch.testing.assert_close(loss, torch.tensor([math.log(4.0)]))


SHAPES: dict[Callable[..., torch.Tensor], dict[str, tuple[int, ...]]] = {
    losses.q_target: {"return_t": (4,), "discount_t": (4,), "q_target_t": (4, 3)},
    losses.double_q_target: {
        "return_t": (4,), "discount_t": (4,), "q_target_t": (4, 3), "q_choice_t": (4, 3),
    },
    losses.td_error: {"q_tm1": (4, 3), "action_tm1": (4,), "target_tm1": (4,)},
    losses.categorical_projection: {
        "return_t": (4,), "discount_t": (4,), "probabilities_t": (4, 5), "support": (5,),
    },
    losses.categorical_loss: {"logits_tm1": (4, 3, 5), "action_tm1": (4,), "target_tm1": (4, 5)},
    losses.generalised_advantage: {
        "reward_t": (6, 4), "discount_t": (6, 4), "trace_t": (6, 4), "value": (7, 4),
    },
    losses.lambda_return: {
        "reward_t": (6, 4), "discount_t": (6, 4), "trace_t": (6, 4), "value": (7, 4),
    },
    losses.policy_gradient: {"logits_t": (6, 4, 3), "action_t": (6, 4), "advantage_t": (6, 4)},
    losses.log_probability: {"logits_t": (6, 4, 3), "action_t": (6, 4)},
    losses.value_error: {"value_t": (6, 4), "return_t": (6, 4)},
}  # fmt: skip


def tensors(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    kinds = {name: torch.int64 if "action" in name else torch.float32 for name in shapes}
    return {name: torch.zeros(shape, dtype=kinds[name]) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("loss", "name"),
    [(loss, name) for loss, shapes in SHAPES.items() for name in shapes],
    ids=lambda one: one if isinstance(one, str) else one.__name__,
)
def test_a_shape_that_would_broadcast_is_refused(
    loss: Callable[..., torch.Tensor], name: str
) -> None:
    shapes = SHAPES[loss]
    loss(**tensors(shapes))
    shape = shapes[name]
    # A dimension more, one row for all of them, a row too few: torch itself takes most of these.
    for wrong in ((*shape, 1), (1, *shape[1:]), (shape[0] - 1, *shape[1:])):
        with pytest.raises(ValueError, match=rf"^{loss.__name__}|^log_probability") as caught:
            loss(**tensors({**shapes, name: wrong}))
        assert "got shape" in str(caught.value)
        assert "\n" not in str(caught.value)
