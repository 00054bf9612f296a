"""The effect of the noise on the policy: effective ε, entropy, and the spread and gap of Q.

Effective ε is the measured counterpart of ε-greedy's ε: how often the agent's action differs from
that of the mean weights. Unlike ε, it depends on the observation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..layers import Draw
from ..layers.outputs import (
    ToValues,
    check_draws,
    check_values,
    effective_epsilon,
    outputs_of_model,
    outputs_under,
)
from .forward_calls import unwatched


@dataclass(frozen=True)
class Behaviour:
    """Effect of the noise on greedy actions, overall and for each observation.

    The figures in `rows` are tensors (B,); the others are their means. For an actor-critic, read
    "logits" for Q.
    """

    effective_epsilon: float
    """Share of noisy greedy actions that differ from that of the mean weights."""
    action_entropy: float
    """Entropy of the noisy greedy action over the draws, in nats; with K draws at most ln K."""
    q_spread: float
    """Standard deviation of Q over the draws, averaged over actions."""
    q_gap: float
    """Q of the best action minus that of the second best, by the mean weights."""
    rows: dict[str, Tensor]
    """The same four figures by name, each of shape (B,)."""

    def figures(self, first: int = 0) -> dict[str, float]:
        """Return the figures by their metric tags; rows are numbered from `first`.

        {"noise/effective_epsilon": …, …, "noise/effective_epsilon/env_0": …, …}.
        """
        figures = {f"noise/{name}": float(getattr(self, name)) for name in self.rows}
        per_row = self.rows["effective_epsilon"].tolist()
        for number, value in enumerate(per_row, start=first):
            figures[f"noise/effective_epsilon/env_{number}"] = value
        return figures


def action_entropy(noisy_q_KBA: Tensor) -> Tensor:
    """Return the entropy of the greedy action over the draws, in nats, (B,).

    It is computed from empirical frequencies, so it is at most ln K, and biased low for few draws.
    """
    actions = noisy_q_KBA.shape[-1]
    chosen = torch.nn.functional.one_hot(noisy_q_KBA.argmax(-1), actions)
    frequency = chosen.float().mean(0)
    return torch.special.entr(frequency).sum(-1)


def q_spread(noisy_q_KBA: Tensor) -> Tensor:
    """Return the standard deviation of Q over the draws, averaged over the actions, (B,)."""
    return noisy_q_KBA.float().std(0, correction=1).mean(-1)


def q_gap(mean_q_BA: Tensor) -> Tensor:
    """Return by how much the best action's Q exceeds the second best's, (B,)."""
    best = mean_q_BA.float().topk(2, dim=-1).values
    return best[..., 0] - best[..., 1]


def measure(noisy_q_KBA: Tensor, mean_q_BA: Tensor) -> Behaviour:
    """Compute all figures from Q under K draws (K, B, A) and by the mean weights (B, A).

    Raises ValueError for fewer than two draws or actions, and for shapes that do not fit.
    """
    check_values(noisy_q_KBA, mean_q_BA, least_draws=2)
    rows = {
        "effective_epsilon": effective_epsilon(noisy_q_KBA, mean_q_BA),
        "action_entropy": action_entropy(noisy_q_KBA),
        "q_spread": q_spread(noisy_q_KBA),
        "q_gap": q_gap(mean_q_BA),
    }
    # One transfer from the device for all of them.
    table = torch.stack(list(rows.values())).cpu()
    rows = dict(zip(rows, table, strict=True))
    return Behaviour(**{name: float(row.mean()) for name, row in rows.items()}, rows=rows)


def measure_draws(values: Callable[[Draw | None], Tensor], drawn: Draw) -> Behaviour:
    """Compute all figures from a function that returns Q (B, A) under a given draw.

    `values` is called with each row of `drawn`, and with None for the mean weights.
    """
    return measure(*outputs_under(values, drawn))


def behaviour(
    model: nn.Module,
    batch: Any,
    *,
    draws: int = 16,
    generator: torch.Generator | None = None,
    values: ToValues | None = None,
) -> Behaviour:
    """Measure what the noise of noisynet's layers does to a model's greedy actions on a batch.

    `batch` is an observation batch (B, …), or the tuple of arguments that the model takes; the
    model returns Q or logits (B, A), or a tuple that begins with them. For a sequence (T, N, p) or
    (T, N, C, H, W) it returns (T, N, A), which counts as T·N rows. `values` makes Q (B, A) from any
    other output, such as a distribution (B, A, atoms). The model, its draws and buffers (running
    means) and torch's global generators are left as they were. Raises ValueError for fewer than two
    draws, a model without noisy layers, or an output of another shape.
    """
    check_draws(draws, least=2)
    with unwatched():
        return measure(
            *outputs_of_model(model, batch, draws=draws, generator=generator, values=values)
        )
