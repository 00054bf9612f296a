"""What is learned from without a replay: some steps of several environments, in their order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rollout:
    """T steps of N environments, as numpy arrays.

    Environments restart a game at a step of its own, which ignores its action. So the observation
    after a truncated game's last step is that game's true last one, and its value is there to
    bootstrap from; the step that follows is no experience.
    """

    observation: np.ndarray
    """(T + 1, N, …): what was seen before each step, and after the last."""
    first: np.ndarray
    """(T + 1, N), bool: this observation is the first of a game."""
    action_t: np.ndarray
    """(T, N), int64."""
    reward_t: np.ndarray
    """(T, N), float32: as it is learned from, clipped where that was asked for."""
    discount_t: np.ndarray
    """(T, N), float32: 0 after termination, else γ."""
    goes_on_t: np.ndarray
    """(T, N), bool: the next step belongs to the same game, and bootstrapping reaches over it."""
    taken_t: np.ndarray
    """(T, N), bool: the action was taken; false for the steps that restarted a game."""

    @staticmethod
    def of_steps(
        *,
        observation: np.ndarray,
        first: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        ignored: np.ndarray,
        discount: float,
    ) -> Rollout:
        """Build it from what the environments returned: T + 1 observations, T of everything else.

        A game that ended unseen shows by the ignored step that follows, and counts as truncated.
        """
        goes_on = ~(terminated | truncated | ignored)
        goes_on[:-1] &= ~ignored[1:]
        return Rollout(
            observation=observation,
            first=first,
            action_t=action,
            reward_t=reward,
            discount_t=np.where(terminated, 0.0, discount).astype(np.float32),
            goes_on_t=goes_on,
            taken_t=~ignored,
        )
