"""Losses against numbers worked out by hand."""

import torch

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
