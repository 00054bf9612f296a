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


def test_the_quantile_huber_loss_by_hand() -> None:
    # Predictions 0 at τ = 1/4 and 1 at τ = 3/4; targets 1/2 and 3.
    quantile = torch.tensor([[0.0], [1.0]], requires_grad=True)
    target = torch.tensor([[0.5], [3.0]], requires_grad=True)
    error = losses.quantile_errors(quantile, target)
    assert torch.equal(error.squeeze(-1), torch.tensor([[0.5, 3.0], [-0.5, 2.0]]))
    # Huber's loss of them is 1/8, 5/2, 1/8 and 3/2; the slopes are 1/4, 1/4, 1/4 (below) and 3/4.
    loss = losses.quantile_huber(error, torch.tensor([[0.25], [0.75]]))
    first, second = (0.25 * 0.125 + 0.25 * 2.5) / 2, (0.25 * 0.125 + 0.75 * 1.5) / 2
    torch.testing.assert_close(loss, torch.tensor([first + second]))
    loss.sum().backward()
    assert target.grad is None
    assert quantile.grad is not None
    wanted = [[-(0.25 * 0.5 + 0.25 * 1) / 2], [-(0.25 * -0.5 + 0.75 * 1) / 2]]
    torch.testing.assert_close(quantile.grad, torch.tensor(wanted))


@hypothesis.given(
    quantile=arrays.arrays(np.float64, (3, 2), elements=strategies.floats(-9, 9)),
    target=arrays.arrays(np.float64, (4, 2), elements=strategies.floats(-9, 9)),
    tau=arrays.arrays(np.float64, (3, 2), elements=strategies.floats(0, 1)),
)
def test_the_quantile_huber_loss_is_that_of_equation_3(
    quantile: np.ndarray, target: np.ndarray, tau: np.ndarray
) -> None:
    wanted = np.zeros(2)
    for row in range(2):
        for i in range(3):
            for j in range(4):
                error = target[j, row] - quantile[i, row]
                size = abs(error)
                huber = 0.5 * size**2 if size <= 1 else size - 0.5
                wanted[row] += abs(tau[i, row] - (error < 0)) * huber / 4
    error = losses.quantile_errors(torch.from_numpy(quantile), torch.from_numpy(target))
    found = losses.quantile_huber(error, torch.from_numpy(tau)).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def test_predictions_settle_at_the_quantiles_of_the_target() -> None:
    """Far from κ = 1, whatever τ is: a share τ of the targets lies below the prediction."""
    target = torch.linspace(-500, 500, 1001).unsqueeze(-1)
    tau = torch.tensor([[0.1], [0.5], [0.9]])
    quantile = torch.tensor([[-400.0], [0.0], [400.0]], requires_grad=True)
    losses.quantile_huber(losses.quantile_errors(quantile, target), tau).sum().backward()
    assert quantile.grad is not None
    assert quantile.grad.abs().max() < 2e-3
    moved = (quantile.detach() + 100).requires_grad_()
    losses.quantile_huber(losses.quantile_errors(moved, target), tau).sum().backward()
    assert moved.grad is not None
    torch.testing.assert_close(moved.grad, torch.full((3, 1), 0.1), atol=2e-3, rtol=0)


def test_what_was_taken_is_read_quantile_by_quantile() -> None:
    of_actions = torch.arange(12.0).reshape(2, 3, 2)
    found = losses.quantiles_of(of_actions, torch.tensor([0, 1, 0]))
    assert torch.equal(found, torch.tensor([[0.0, 3.0, 4.0], [6.0, 9.0, 10.0]]))


@pytest.mark.parametrize(
    ("quantile", "target", "named"),
    [((3, 4, 1), (2, 4), "quantile_tm1"), ((3, 4), (2, 4, 1), "target_tm1"),
     ((3, 4), (2, 1), "target_tm1"), ((3, 1), (2, 4), "target_tm1"), ((3, 4), (4,), "target_tm1")],
)  # fmt: skip
def test_quantiles_of_other_rows_are_refused(
    quantile: tuple[int, ...], target: tuple[int, ...], named: str
) -> None:
    with pytest.raises(ValueError, match=f"^quantile_errors: {named}: got shape"):
        losses.quantile_errors(torch.zeros(quantile), torch.zeros(target))


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
    losses.quantile_huber: {"error": (3, 2, 4), "tau": (3, 4)},
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
