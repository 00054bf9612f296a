"""The gradient that an update leaves: of this loss alone, and no longer than it may be."""

import math

import pytest
import torch
from torch import nn

from noisynet.agents.optimizers import LossNotFinite, backward_and_clip, set_step_size


def three_four() -> tuple[nn.Parameter, nn.Parameter, torch.Tensor]:
    """Return x, y and 3x + 4y, whose gradient (3, 4) is 5 long."""
    x, y = nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.tensor([[2.0]]))
    return x, y, (3 * x + 4 * y).sum()


@pytest.mark.parametrize(
    ("limit", "expected"), [(None, (3, 4)), (5.0, (3, 4)), (10.0, (3, 4)), (1.0, (0.6, 0.8))]
)
def test_a_longer_gradient_is_scaled_down_and_a_shorter_one_left(
    limit: float | None, expected: tuple[float, float]
) -> None:
    x, y, loss = three_four()
    beside = nn.Parameter(torch.ones(3))  # the loss does not depend on it
    optimizer = torch.optim.SGD([{"params": [x]}, {"params": [y, beside]}])
    x.grad = torch.full((1,), 7.0)  # of the update before
    value = backward_and_clip(loss, optimizer, max_norm=limit, update=1)
    assert value == 11
    assert x.grad is not None
    assert y.grad is not None
    assert beside.grad is None
    assert (x.grad.item(), y.grad.item()) == pytest.approx(expected, rel=1e-6)
    set_step_size(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


@pytest.mark.parametrize("limit", [0.01, 1.0, 1e3])
def test_the_gradient_is_that_of_torchs_own_functions_bit_for_bit(limit: float) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3))
    batch = torch.randn(4, 7)
    optimizer = torch.optim.Adam(network.parameters())
    backward_and_clip(network(batch).square().sum(), optimizer, max_norm=limit, update=1)
    ours = [one.grad for one in network.parameters()]
    network.zero_grad()
    network(batch).square().sum().backward()
    nn.utils.clip_grad_norm_(network.parameters(), limit, foreach=True)
    for one, parameter in zip(ours, network.parameters(), strict=True):
        assert one is not None
        assert parameter.grad is not None
        assert torch.equal(one, parameter.grad)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_or_gradient_that_is_not_finite_is_named_with_its_update(value: float) -> None:
    x, y, loss = three_four()
    optimizer = torch.optim.SGD([x, y])
    with pytest.raises(LossNotFinite, match=r"the loss became (nan|inf) at update 7"):
        backward_and_clip(loss * value, optimizer, max_norm=1.0, update=7)
    with pytest.raises(LossNotFinite, match=r"the loss's gradient became (nan|inf) at update 8"):
        # The root's slope at 0 is infinite.
        backward_and_clip((x - 1).sqrt().sum(), optimizer, max_norm=None, update=8)
    assert (x.item(), y.item()) == (1, 2)
