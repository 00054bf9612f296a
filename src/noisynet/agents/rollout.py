"""Rollouts: consecutive steps of several environments, learned from without a replay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rollout:
    """T steps of N environments, as numpy arrays.

    Restarting a game takes an environment a separate step, which ignores its action. So the
    observation after a truncated game's last step is truly that game's last one, whose value can be
    bootstrapped from. The step that restarts the game is not learned from.
    """

    observation: np.ndarray
    """(T + 1, N, …): the observations before each step, and after the last."""
    first: np.ndarray
    """(T + 1, N), bool: this observation is the first of a game."""
    action_t: np.ndarray
    """(T, N), int64."""
    reward_t: np.ndarray
    """(T, N), float32: as learned from, clipped if the config says so."""
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
        """Build a rollout from what the environments returned.

        `observation` and `first` have T + 1 entries, the others T. If a game's end was not
        reported, the ignored step that follows shows it, and the game counts as truncated.
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
