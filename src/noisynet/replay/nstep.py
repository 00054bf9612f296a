"""n-step returns and their windows of steps, as pure functions of rewards and flags.

Suffixes: B samples, N the steps a window may take (n), so column k is record t + k.
"""

import numpy as np
import numpy.typing as npt


def mark_taken(ended_BN: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Mark the steps that a window takes: those up to and including the first end.

    Args:
        ended_BN: whether the step ended the window (terminated or truncated).

    Returns:
        Booleans of the same shape. The first column is always true, and a row's sum is m, the
        number of steps taken.
    """
    taken_BN = np.ones_like(ended_BN)
    np.logical_or.accumulate(ended_BN[:, :-1], axis=1, out=taken_BN[:, 1:])
    np.logical_not(taken_BN[:, 1:], out=taken_BN[:, 1:])
    return taken_BN


def n_step_return(
    reward_BN: npt.NDArray[np.floating],
    terminated_BN: npt.NDArray[np.bool_],
    truncated_BN: npt.NDArray[np.bool_],
    discount: float,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Sum discounted rewards up to n steps, or up to the first end (Sutton and Barto, eq. 7.1).

    Columns after the end are ignored. A step that is both terminated and truncated counts as
    terminated. Sums are computed in double precision.

    Args:
        reward_BN: reward r of each step.
        terminated_BN: the value after the step is zero.
        truncated_BN: the window ends with the step, but the value after it counts.
        discount: γ, per step.

    Returns:
        `return_B` (Σ γ^k r over the m steps taken), `discount_B` (γ^m, or 0 if terminated) and
        `steps_B` (m), so that a target reads `return_t + discount_t * q_t.max()`.
    """
    taken_BN = mark_taken(terminated_BN | truncated_BN)
    steps_B = taken_BN.sum(axis=1, dtype=np.int64)
    power = np.power(float(discount), np.arange(reward_BN.shape[1] + 1))
    # Not a product with `taken_BN`: a NaN after the end must not come through as 0 · NaN.
    return_B = np.where(taken_BN, reward_BN * power[:-1], 0.0).sum(axis=1)
    terminated_B = (terminated_BN & taken_BN).any(axis=1)
    discount_B = np.where(terminated_B, 0.0, power[steps_B])
    return return_B.astype(np.float32), discount_B.astype(np.float32), steps_B
