"""Losses as pure functions, written as the papers' equations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def q_target(return_t: Tensor, discount_t: Tensor, q_target_t: Tensor) -> Tensor:
    """Give r + γ max_b Q(y, b, ε′; ζ⁻) (arXiv 1706.10295, eq. 14, summed over n steps).

    Shapes: return_t and discount_t (B,), q_target_t (B, actions); gives (B,). discount_t carries
    termination: 0 there, else γ to the number of steps.
    """
    return return_t + discount_t * q_target_t.amax(-1)


def double_q_target(
    return_t: Tensor, discount_t: Tensor, q_target_t: Tensor, q_choice_t: Tensor
) -> Tensor:
    """Give r + γ Q(y, b*, ε′; ζ⁻) with b* = argmax_b Q(y, b, ε″; ζ) (arXiv 1706.10295, eq. 16).

    Shapes as in `q_target`; q_choice_t (B, actions) comes from the online net under a draw of its
    own, ε″.
    """
    action_t = q_choice_t.argmax(-1, keepdim=True)
    return return_t + discount_t * q_target_t.gather(-1, action_t).squeeze(-1)


def td_error(q_tm1: Tensor, action_tm1: Tensor, target_tm1: Tensor) -> Tensor:
    """Give target - Q(x, a, ε; ζ), shape (B,); no gradient flows into the target."""
    q_a_tm1 = q_tm1.gather(-1, action_tm1.unsqueeze(-1)).squeeze(-1)
    return target_tm1.detach() - q_a_tm1


def huber(error: Tensor) -> Tensor:
    """Give ½e² where |e| ≤ 1, else |e| - ½ (Huber 1964; Mnih et al. 2015 clip the same way)."""
    return functional.huber_loss(error, torch.zeros_like(error), reduction="none")


def squared(error: Tensor) -> Tensor:
    """Give ½e²."""
    return 0.5 * error.square()


LOSSES = {"huber": huber, "squared": squared}
