"""Losses as pure functions, written as the papers' equations.

Each checks the shapes of its arguments: (B,) against (B, 1) would broadcast silently, and a gather
with too few actions would drop rows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def check_rank(function: str, name: str, tensor: Tensor, rank: int) -> None:
    """Raise ValueError for a tensor of another rank, naming function, argument and shape."""
    if tensor.dim() != rank:
        raise ValueError(
            f"{function}: {name}: got shape {tuple(tensor.shape)}, expected {rank} dimensions"
        )


def check_shape(function: str, shape: torch.Size, **tensors: Tensor) -> None:
    """Raise ValueError for a tensor of another shape, naming function, argument and shapes."""
    for name, tensor in tensors.items():
        if tensor.shape != shape:
            raise ValueError(
                f"{function}: {name}: got shape {tuple(tensor.shape)}, expected {tuple(shape)}"
            )


def q_target(return_t: Tensor, discount_t: Tensor, q_target_t: Tensor) -> Tensor:
    """Return r + γ max_b Q(y, b, ε′; ζ⁻) (arXiv 1706.10295, eq. 14, summed over n steps).

    Shapes: return_t and discount_t (B,), q_target_t (B, actions); returns (B,). discount_t carries
    termination: it is 0 there, else γ to the power of the number of steps.
    """
    check_rank("q_target", "q_target_t", q_target_t, 2)
    check_shape("q_target", q_target_t.shape[:1], return_t=return_t, discount_t=discount_t)
    return return_t + discount_t * q_target_t.amax(-1)


def double_q_target(
    return_t: Tensor, discount_t: Tensor, q_target_t: Tensor, q_choice_t: Tensor
) -> Tensor:
    """Return r + γ Q(y, b*, ε′; ζ⁻) with b* = argmax_b Q(y, b, ε″; ζ) (arXiv 1706.10295, eq. 16).

    Shapes as in `q_target`; q_choice_t (B, actions) comes from the online net under a draw of its
    own, ε″.
    """
    check_rank("double_q_target", "q_target_t", q_target_t, 2)
    check_shape("double_q_target", q_target_t.shape[:1], return_t=return_t, discount_t=discount_t)
    check_shape("double_q_target", q_target_t.shape, q_choice_t=q_choice_t)
    action_t = q_choice_t.argmax(-1, keepdim=True)
    return return_t + discount_t * q_target_t.gather(-1, action_t).squeeze(-1)


def td_error(q_tm1: Tensor, action_tm1: Tensor, target_tm1: Tensor) -> Tensor:
    """Return target - Q(x, a, ε; ζ), shape (B,); no gradient flows into the target."""
    check_rank("td_error", "q_tm1", q_tm1, 2)
    check_shape("td_error", q_tm1.shape[:1], action_tm1=action_tm1, target_tm1=target_tm1)
    q_a_tm1 = q_tm1.gather(-1, action_tm1.unsqueeze(-1)).squeeze(-1)
    return target_tm1.detach() - q_a_tm1


def huber(error: Tensor) -> Tensor:
    """Return ½e² where |e| ≤ 1, else |e| - ½ (Huber 1964; Mnih et al. 2015 clip the same way)."""
    return functional.huber_loss(error, torch.zeros_like(error), reduction="none")


def squared(error: Tensor) -> Tensor:
    """Return ½e²."""
    return 0.5 * error.square()


LOSSES = {"huber": huber, "squared": squared}


def atoms_of(of_actions: Tensor, action: Tensor) -> Tensor:
    """Return the atoms of each row's action: (B, actions, atoms) and (B,) to (B, atoms)."""
    index = action.view(-1, 1, 1).expand(-1, 1, of_actions.shape[-1])
    return of_actions.gather(1, index).squeeze(1)


def categorical_projection(
    return_t: Tensor, discount_t: Tensor, probabilities_t: Tensor, support: Tensor
) -> Tensor:
    """Return Φ T̂ Z: r + γ z projected onto the fixed atoms (arXiv 1707.06887, §4.1).

    Shapes: return_t and discount_t (B,), probabilities_t (B, atoms), support (atoms,), evenly
    spaced and rising; returns (B, atoms). Each atom's mass goes to its two neighbours in proportion
    to their nearness (eq. 7): neighbour i gets max(0, 1 - |T z_j - z_i| / Δz).
    """
    name = "categorical_projection"
    check_rank(name, "probabilities_t", probabilities_t, 2)
    check_shape(name, probabilities_t.shape[:1], return_t=return_t, discount_t=discount_t)
    check_shape(name, probabilities_t.shape[1:], support=support)
    low, high, gap = support[0], support[-1], support[1] - support[0]
    atom_t = return_t.unsqueeze(-1) + discount_t.unsqueeze(-1) * support
    atom_t = atom_t.clamp(low, high)
    distance = (atom_t.unsqueeze(-2) - support.unsqueeze(-1)).abs() / gap
    nearness = (1 - distance).clamp_min(0)
    return (nearness * probabilities_t.unsqueeze(-2)).sum(-1)


def categorical_loss(logits_tm1: Tensor, action_tm1: Tensor, target_tm1: Tensor) -> Tensor:
    """Return the KL divergence of prediction from target, shape (B,) (arXiv 1707.06887, §4.1).

    Shapes: logits_tm1 (B, actions, atoms), action_tm1 (B,), target_tm1 (B, atoms). Its gradient is
    that of the cross-entropy; no gradient flows into the target.
    """
    check_rank("categorical_loss", "logits_tm1", logits_tm1, 3)
    check_shape("categorical_loss", logits_tm1.shape[:1], action_tm1=action_tm1)
    check_shape("categorical_loss", logits_tm1[:, 0].shape, target_tm1=target_tm1)
    log_probabilities = atoms_of(logits_tm1, action_tm1).log_softmax(-1)
    target = target_tm1.detach()
    return functional.kl_div(log_probabilities, target, reduction="none").sum(-1)


def quantiles_of(of_actions: Tensor, action: Tensor) -> Tensor:
    """Return the quantiles of each row's action: (K, B, actions) and (B,) to (K, B)."""
    index = action.view(1, -1, 1).expand(len(of_actions), -1, 1)
    return of_actions.gather(-1, index).squeeze(-1)


def quantile_errors(quantile_tm1: Tensor, target_tm1: Tensor) -> Tensor:
    """Return δ_ij = target_j - quantile_i, every target minus every prediction.

    Shapes: quantile_tm1 (N, B), target_tm1 (N′, B); returns (N, N′, B). No gradient flows into the
    target. Source: arXiv 1806.06923, eq. 2.
    """
    check_rank("quantile_errors", "quantile_tm1", quantile_tm1, 2)
    check_rank("quantile_errors", "target_tm1", target_tm1, 2)
    wanted = target_tm1.shape[:1] + quantile_tm1.shape[1:]
    check_shape("quantile_errors", wanted, target_tm1=target_tm1)
    return target_tm1.detach().unsqueeze(0) - quantile_tm1.unsqueeze(1)


def quantile_huber(error: Tensor, tau: Tensor) -> Tensor:
    """Return Σ_i mean_j |τ_i - 1{δ_ij < 0}| H(δ_ij), shape (B,), where H is `huber` (κ = 1).

    Shapes: error (N, N′, B) from `quantile_errors`, tau (N, B), the fractions of the predictions.
    Source: arXiv 1806.06923, eq. 3; arXiv 1710.10044, eq. 10.
    """
    check_rank("quantile_huber", "error", error, 3)
    check_shape("quantile_huber", error[:, 0].shape, tau=tau)
    slope = (tau.unsqueeze(1) - (error.detach() < 0).to(tau.dtype)).abs()
    return (slope * huber(error)).mean(1).sum(0)


def lambda_return(reward_t: Tensor, discount_t: Tensor, trace_t: Tensor, value: Tensor) -> Tensor:
    """Return G_t = r_t + discount_t [(1 - trace_t) V_t+1 + trace_t G_t+1].

    With V = max_a Q these are the targets of Q(λ) (arXiv 2407.04811, §3). Shapes: reward_t,
    discount_t and trace_t (T, …), value (T + 1, …); returns (T, …). discount_t carries termination:
    it is 0 there, else γ. trace_t is λ where the next step continues the same game, else 0, so
    that a truncated game bootstraps from its own last observation. The recursion starts with
    G_T = V_T.
    """
    check_shape(
        "lambda_return", reward_t.shape, discount_t=discount_t, trace_t=trace_t, value=value[1:]
    )
    return_t = torch.empty_like(value[1:])
    following = value[-1]
    for t in reversed(range(len(reward_t))):
        bootstrap = (1 - trace_t[t]) * value[t + 1] + trace_t[t] * following
        following = reward_t[t] + discount_t[t] * bootstrap
        return_t[t] = following
    return return_t


def generalised_advantage(
    reward_t: Tensor, discount_t: Tensor, trace_t: Tensor, value: Tensor
) -> Tensor:
    """Return A_t = δ_t + discount_t trace_t A_t+1 with δ_t = r_t + discount_t V_t+1 - V_t.

    Shapes: reward_t, discount_t and trace_t (T, …), value (T + 1, …), the last one to bootstrap
    from; returns (T, …). discount_t carries termination: it is 0 there, else γ. trace_t is λ where
    the next step continues the same game, else 0, so that a truncated game bootstraps from its own
    last observation. λ = 1 gives n-step returns, A_t + V_t (arXiv 1602.01783, §4.3).
    Source: arXiv 1506.02438, eq. 16.
    """
    name = "generalised_advantage"
    check_shape(name, reward_t.shape, discount_t=discount_t, trace_t=trace_t, value=value[1:])
    delta_t = reward_t + discount_t * value[1:] - value[:-1]
    decay_t = discount_t * trace_t
    advantage_t = torch.zeros_like(delta_t)
    following = torch.zeros_like(value[0])
    for t in reversed(range(len(delta_t))):
        following = delta_t[t] + decay_t[t] * following
        advantage_t[t] = following
    return advantage_t


def policy_gradient(logits_t: Tensor, action_t: Tensor, advantage_t: Tensor) -> Tensor:
    """Return -A_t log π(a_t | x_t, ε; ζ) (arXiv 1706.10295, appendix C.2; arXiv 1602.01783, §4.3).

    Shapes: logits_t (…, actions), action_t and advantage_t (…); returns (…). No gradient flows into
    the advantage.
    """
    check_shape("policy_gradient", action_t.shape, advantage_t=advantage_t)
    return -advantage_t.detach() * log_probability(logits_t, action_t)


def log_probability(logits_t: Tensor, action_t: Tensor) -> Tensor:
    """Return log π(a_t | x_t): logits (…, actions) and actions (…) to (…)."""
    check_shape("log_probability", logits_t.shape[:-1], action_t=action_t)
    return logits_t.log_softmax(-1).gather(-1, action_t.unsqueeze(-1)).squeeze(-1)


def value_error(value_t: Tensor, return_t: Tensor) -> Tensor:
    """Return (R_t - V(x_t, ε; ζ))², shape (…); no gradient flows into the return."""
    check_shape("value_error", value_t.shape, return_t=return_t)
    return (return_t.detach() - value_t).square()


def entropy(logits_t: Tensor) -> Tensor:
    """Return -Σ_a π(a | x_t) log π(a | x_t): logits (…, actions) to (…)."""
    log_probabilities = logits_t.log_softmax(-1)
    return -(log_probabilities.exp() * log_probabilities).sum(-1)
