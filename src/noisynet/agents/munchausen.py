"""Munchausen reinforcement learning: the policy's own log-probability is added to the reward."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .losses import check_rank, check_shape


@dataclass(frozen=True, kw_only=True)
class Munchausen:
    """Targets that follow the softmax policy of Q (Vieillard et al. 2020, arXiv 2007.14430).

    Raises ValueError for a field outside its range.
    """

    weight: float = 0.9
    """α: how much of the log-policy is added to the reward."""
    temperature: float
    """τ, in the unit of returns: π = softmax(Q / τ). The paper's 0.03 is for rewards of ±1."""
    least: float = -1.0
    """l0: τ ln π counts as no less than this."""

    def __post_init__(self) -> None:
        for name, right, expected in (
            ("weight", 0 <= self.weight <= 1, "from 0 to 1"),
            ("temperature", self.temperature > 0, "above 0"),
            ("least", self.least <= 0, "0 or less"),
        ):
            if not right:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected {expected}")

    def target(
        self,
        return_t: Tensor,
        discount_t: Tensor,
        target_t: Tensor,
        q_tm1: Tensor,
        action_tm1: Tensor,
    ) -> Tensor:
        """Return r + α [τ ln π(a|x)]_l0^0 + γ Σ_b π(b|y) (Z(y, b) - τ ln π(b|y)) (eq. 1 and 3).

        Shapes: return_t, discount_t and action_tm1 (B,); q_tm1 (B, actions), whose softmax is
        π(·|x). target_t holds values Z = Q(y, ·), shape (B, actions), and gives targets (B,); or
        quantiles (K, B, actions), whose mean is the Q of π(·|y), and gives targets (K, B). A sum of
        n rewards gets the log-policy of its first action only.
        """
        check_rank("munchausen", "q_tm1", q_tm1, 2)
        quantiles = target_t.shape[:1] if target_t.dim() == 3 else torch.Size()
        check_shape("munchausen", quantiles + q_tm1.shape, target_t=target_t)
        rows = {"return_t": return_t, "discount_t": discount_t, "action_tm1": action_tm1}
        check_shape("munchausen", q_tm1.shape[:1], **rows)
        acted = scaled_log_policy(q_tm1, self.temperature)
        bonus = acted.gather(-1, action_tm1.unsqueeze(-1)).squeeze(-1).clamp(self.least, 0)
        q_t = target_t if target_t.dim() == 2 else target_t.mean(0)
        log_policy_t = scaled_log_policy(q_t, self.temperature)
        policy_t = (log_policy_t / self.temperature).exp()
        soft_t = (policy_t * (target_t - log_policy_t)).sum(-1)
        return return_t + self.weight * bonus + discount_t * soft_t


def scaled_log_policy(q: Tensor, temperature: float) -> Tensor:
    """Return τ ln π(·|x) with π = softmax(Q / τ), in the unit of returns; Q is (…, actions)."""
    return temperature * (q / temperature).log_softmax(-1)
