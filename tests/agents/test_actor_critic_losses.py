"""The actor-critic's losses: by hand, and against slow references."""

import math

import hypothesis
import numpy as np
import torch
from hypothesis import strategies
from hypothesis.extra import numpy as arrays

from noisynet.agents import Rollout, losses


def test_n_step_returns_are_the_paper_s() -> None:
    # Three steps, γ = 0.5, λ = 1: R_0 = 1 + 0.5 · 2 + 0.25 · 3 + 0.125 · 8.
    value = torch.tensor([10.0, 20.0, 30.0, 8.0])
    advantage = losses.generalised_advantage(
        torch.tensor([1.0, 2.0, 3.0]), torch.full((3,), 0.5), torch.ones(3), value
    )
    returns = advantage + value[:-1]
    torch.testing.assert_close(returns, torch.tensor([3.75, 5.5, 7.0]))


def test_lambda_0_is_one_step_temporal_difference() -> None:
    value = torch.tensor([10.0, 20.0, 30.0, 8.0])
    advantage = losses.generalised_advantage(
        torch.tensor([1.0, 2.0, 3.0]), torch.full((3,), 0.5), torch.zeros(3), value
    )
    torch.testing.assert_close(advantage, torch.tensor([1.0, -3.0, -23.0]))


def test_termination_stops_and_truncation_bootstraps_from_the_last_observation() -> None:
    # The second step ends the game, by termination or by truncation; 7 is the value of what is
    # seen last. Nothing of the game after it may be heard of before it.
    value = torch.tensor([[1.0, 1.0], [2.0, 2.0], [7.0, 7.0], [1e6, 1e6]])
    advantage = losses.generalised_advantage(
        torch.ones(3, 2),
        torch.tensor([[0.5, 0.5], [0.0, 0.5], [0.5, 0.5]]),
        torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]),
        value,
    )
    last = torch.tensor([1 - 2.0, 1 + 0.5 * 7 - 2.0])
    torch.testing.assert_close(advantage[1], last)
    torch.testing.assert_close(advantage[0], 1 + 0.5 * 2 - 1 + 0.5 * last)


def test_policy_gradient_and_value_error_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]], requires_grad=True)
    advantage = torch.tensor([2.0], requires_grad=True)
    loss = losses.policy_gradient(logits, torch.tensor([0]), advantage)
    torch.testing.assert_close(loss, torch.tensor([2 * math.log(4.0)]))
    loss.sum().backward()
    assert advantage.grad is None
    # A (π - 1[a]).
    torch.testing.assert_close(logits.grad, torch.tensor([[2 * (0.25 - 1), 2 * 0.75]]))
    value = torch.tensor([1.0], requires_grad=True)
    returns = torch.tensor([4.0], requires_grad=True)
    error = losses.value_error(value, returns)
    assert float(error.detach()) == 9.0
    error.sum().backward()
    assert returns.grad is None
    assert value.grad is not None
    assert float(value.grad) == -6.0


def test_entropy_is_that_of_the_policy() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [0.0, math.log(3.0), -1e9]])
    wanted = torch.tensor([math.log(3.0), -0.25 * math.log(0.25) - 0.75 * math.log(0.75)])
    torch.testing.assert_close(losses.entropy(logits), wanted)


STEPS, ENVIRONMENTS = 6, 3
numbers = strategies.floats(-10, 10)


@hypothesis.given(
    reward=arrays.arrays(np.float64, (STEPS, ENVIRONMENTS), elements=numbers),
    value=arrays.arrays(np.float64, (STEPS + 1, ENVIRONMENTS), elements=numbers),
    ends=arrays.arrays(np.int64, (STEPS, ENVIRONMENTS), elements=strategies.integers(0, 7)),
    discount=strategies.floats(0, 1),
    gae_lambda=strategies.floats(0, 1),
)
def test_advantages_of_rollouts_are_those_of_one_game_after_the_other(
    reward: np.ndarray, value: np.ndarray, ends: np.ndarray, discount: float, gae_lambda: float
) -> None:
    """Against sums over each game alone, forwards, from the definition in float64.

    1 is the end of a game by termination, 2 by truncation, 3 one that ends unseen; 4 is a lost
    life, which terminates while the game goes on. The step after an end restarts the game.
    """
    ends = ends.copy()
    ignored = np.zeros((STEPS, ENVIRONMENTS), bool)
    for t in range(1, STEPS):
        ignored[t] = np.isin(ends[t - 1], [1, 2, 3]) & ~ignored[t - 1]
        ends[t][ignored[t]] = 0
    reward = np.where(ignored, 0.0, reward)
    rollout = Rollout.of_steps(
        observation=np.zeros((STEPS + 1, ENVIRONMENTS)),
        first=np.zeros((STEPS + 1, ENVIRONMENTS), bool),
        action=np.zeros((STEPS, ENVIRONMENTS), np.int64),
        reward=reward,
        terminated=np.isin(ends, [1, 4]),
        truncated=ends == 2,
        ignored=ignored,
        discount=discount,
    )
    advantage = losses.generalised_advantage(
        torch.from_numpy(rollout.reward_t),
        torch.from_numpy(rollout.discount_t).double(),
        gae_lambda * torch.from_numpy(rollout.goes_on_t).double(),
        torch.from_numpy(value),
    ).numpy()
    gamma = float(np.float32(discount))
    for environment in range(ENVIRONMENTS):
        for t in range(STEPS):
            assert rollout.taken_t[t, environment] == (not ignored[t, environment])
            if ignored[t, environment]:
                continue
            wanted, factor = 0.0, 1.0
            for k in range(t, STEPS):
                end = ends[k, environment]
                bootstrap = 0.0 if end in (1, 4) else gamma * value[k + 1, environment]
                delta = reward[k, environment] + bootstrap - value[k, environment]
                wanted += factor * delta
                factor *= gamma * gae_lambda
                if end in (1, 2, 3, 4):
                    break
            np.testing.assert_allclose(advantage[t, environment], wanted, atol=1e-6)
