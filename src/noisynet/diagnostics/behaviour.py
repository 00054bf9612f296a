"""What the noise does to the policy: effective ε, entropy, the spread of Q against its gap.

Effective ε is the measured counterpart of ε-greedy's ε: how often the agent does something else
than it would by the mean weights. Unlike ε it depends on the observation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..layers import Draw, draw, mean_weights, using
from .preserve import buffers_preserved

ToValues = Callable[[Any], Tensor]
"""From a model's output to Q or logits (B, A)."""


@dataclass(frozen=True)
class Behaviour:
    """What draws of noise do to greedy actions, overall and for each observation.

    `rows` figures are tensors (B,); the others are their means. With actor-critics read "logits"
    for Q.
    """

    effective_epsilon: float
    """Share of noisy greedy actions that differ from the mean weights' one."""
    action_entropy: float
    """Entropy of the noisy greedy action over the draws, in nats; with K draws at most ln K."""
    q_spread: float
    """Standard deviation of Q over the draws, a mean over actions."""
    q_gap: float
    """Q of the best action less that of the second best, by the mean weights."""
    rows: dict[str, Tensor]
    """The same four by their names, each of shape (B,)."""

    def figures(self, first: int = 0) -> dict[str, float]:
        """Return them by the tags that metrics have; `first` is the number of the first row.

        {"noise/effective_epsilon": …, …, "noise/effective_epsilon/env_0": …, …}.
        """
        figures = {f"noise/{name}": float(getattr(self, name)) for name in self.rows}
        per_row = self.rows["effective_epsilon"].tolist()
        for number, value in enumerate(per_row, start=first):
            figures[f"noise/effective_epsilon/env_{number}"] = value
        return figures


def effective_epsilon(noisy_q_KBA: Tensor, mean_q_BA: Tensor) -> Tensor:
    """Return the share of K draws whose greedy action is not the mean weights', (B,)."""
    return (noisy_q_KBA.argmax(-1) != mean_q_BA.argmax(-1)).float().mean(0)


def action_entropy(noisy_q_KBA: Tensor) -> Tensor:
    """Return the entropy of the greedy action over the draws, in nats, (B,).

    It is that of the empirical frequencies: at most ln K, and a little low for few draws.
    """
    actions = noisy_q_KBA.shape[-1]
    chosen = torch.nn.functional.one_hot(noisy_q_KBA.argmax(-1), actions)
    frequency = chosen.float().mean(0)
    return torch.special.entr(frequency).sum(-1)


def q_spread(noisy_q_KBA: Tensor) -> Tensor:
    """Return the standard deviation of Q over the draws, a mean over the actions, (B,)."""
    return noisy_q_KBA.float().std(0, correction=1).mean(-1)


def q_gap(mean_q_BA: Tensor) -> Tensor:
    """Return by how much the best action's Q exceeds the second best's, (B,)."""
    best = mean_q_BA.float().topk(2, dim=-1).values
    return best[..., 0] - best[..., 1]


def measure(noisy_q_KBA: Tensor, mean_q_BA: Tensor) -> Behaviour:
    """Compute all figures from Q under K draws (K, B, A) and by the mean weights (B, A).

    Raises ValueError for fewer than two draws or actions, and for shapes that do not fit.
    """
    if noisy_q_KBA.ndim != 3 or noisy_q_KBA.shape[1:] != mean_q_BA.shape:
        raise ValueError(
            f"got Q of shape {tuple(noisy_q_KBA.shape)} under draws and {tuple(mean_q_BA.shape)} "
            "by the mean weights, expected (K, B, A) and (B, A)"
        )
    if noisy_q_KBA.shape[0] < 2 or noisy_q_KBA.shape[-1] < 2 or not len(mean_q_BA):
        raise ValueError(
            f"got Q of shape {tuple(noisy_q_KBA.shape)}, expected at least 2 draws, 1 row and "
            "2 actions"
        )
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
    """Compute all figures from `values`, which returns Q (B, A) under a draw, or the mean weights.

    Each row of `drawn` is one draw; None stands for the mean weights.
    """
    mean = values(None)
    noisy = [values(drawn[row]) for row in range(drawn.rows or 0)]
    return measure(torch.stack(noisy), mean)


@torch.no_grad()
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
    (T, N, C, H, W) they are (T, N, A), and T·N rows. `values` makes them from any other output,
    such as Q from a distribution (B, A, atoms). The model is left as it was, its draws and buffers
    (running means) too, and so are torch's global generators. Raises ValueError for fewer than two
    draws, a model without noisy layers, or an output of another shape.
    """
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 2:
        raise ValueError(f"draws: got {draws!r}, expected a whole number of at least 2")
    arguments = batch if isinstance(batch, tuple) else (batch,)

    def values_under(one: Draw | None) -> Tensor:
        with mean_weights(model) if one is None else using(model, one):
            return values_of(model(*arguments), arguments, values)

    with buffers_preserved(model):
        return measure_draws(values_under, draw(model, rows=draws, generator=generator))


@torch.no_grad()
def behaviour_of_head(
    head: nn.Module,
    features: Tensor,
    *,
    draws: int = 16,
    generator: torch.Generator | None = None,
) -> Behaviour:
    """Measure the same where all noise is in a head: features (B, p) to Q (B, A), in one pass.

    The body's features are computed once for all draws, and the head's weights are read once.
    """
    with buffers_preserved(head):
        drawn = draw(head, rows=draws, generator=generator)
        with mean_weights(head):
            mean = values_of(head(features), (features,))
        with using(head, drawn):
            # Every observation is shown to every draw: (B, K, p), row k of which is draw k's.
            rows = features.unsqueeze(1).expand(-1, draws, *features.shape[1:])
            noisy = _first(head(rows))
    return measure(noisy.transpose(0, 1), mean)


def _first(output: Any) -> Tensor:
    first = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(first, Tensor) or first.ndim < 2:
        got = f"shape {tuple(first.shape)}" if isinstance(first, Tensor) else type(first).__name__
        raise ValueError(f"the model gave {got}, expected values (B, A), or a tuple that has them")
    return first


def values_of(output: Any, arguments: tuple[Any, ...], values: ToValues | None = None) -> Tensor:
    """Return values (rows, A) from what a model returned for its arguments.

    Raises ValueError where more than one dimension precedes the last and they are not those of a
    sequence of observations: (B, A, atoms) would pass for B·A rows otherwise.
    """
    found = _first(output if values is None else values(output))
    if found.ndim == 2:
        return found
    batch = arguments[0] if arguments else None
    leading = found.shape[:-1]
    # What is left of the batch is one observation: a vector, or an image with its channels.
    if (
        isinstance(batch, Tensor)
        and batch.shape[: len(leading)] == leading
        and batch.ndim - len(leading) in (1, 3)
    ):
        return found.flatten(0, -2)
    raise ValueError(
        f"the model gave shape {tuple(found.shape)}, expected values (B, A): a distribution's "
        "mean, say, made by a function from output to Q (values= of behaviour and NoiseMonitor)"
    )
