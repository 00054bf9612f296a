"""A model's outputs on one batch, under its mean weights and under draws of its noise.

Diagnostics and control measure from these: (K, B, A) under K draws, (B, A) under the mean weights.
The model is left as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .draws import Draw
from .kernels.tracing import uncompiled
from .restoring import buffers_preserved
from .states import draw, mean_weights, using

ToValues = Callable[[Any], Tensor]
"""A function from a model's output to Q-values, logits or actions (B, A)."""

Outputs = tuple[Tensor, Tensor]
"""Outputs (K, B, A) under K draws, and (B, A) under the mean weights."""


def check_draws(draws: int, least: int) -> None:
    """Raise ValueError unless `draws` is a whole number of at least `least`."""
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < least:
        raise ValueError(f"draws: got {draws!r}, expected a whole number of at least {least}")


def outputs_under(values: Callable[[Draw | None], Tensor], drawn: Draw) -> Outputs:
    """Return the outputs of `values` under each row of a draw, and under None: the mean weights.

    Each begins with the same random numbers, so that dropout drops the same units in all of them.
    """
    devices = {one.device for one in drawn.flats if one.device.type == "cuda"}

    def alike(one: Draw | None) -> Tensor:
        with torch.random.fork_rng(devices=devices):
            return values(one)

    mean = alike(None)
    return torch.stack([alike(drawn[row]) for row in range(drawn.rows or 0)]), mean


@torch.no_grad()
def outputs_of_model(
    model: nn.Module,
    batch: Any,
    *,
    draws: int,
    generator: torch.Generator | None = None,
    values: ToValues | None = None,
) -> Outputs:
    """Return the outputs of a model on a batch, under new draws and under its mean weights.

    `batch` is an observation batch (B, …), or the tuple of arguments that the model takes; `values`
    converts outputs of another shape to (B, A). The noise in force, buffers and torch's global
    generators are left as they were. Raises ValueError for a model without noisy layers, or an
    output of another shape.
    """
    arguments = batch if isinstance(batch, tuple) else (batch,)

    def values_under(one: Draw | None) -> Tensor:
        with mean_weights(model) if one is None else using(model, one):
            return values_of(model(*arguments), arguments, values)

    with buffers_preserved(model), uncompiled():
        return outputs_under(values_under, draw(model, rows=draws, generator=generator))


@torch.no_grad()
def outputs_of_head(
    head: nn.Module,
    features: Tensor,
    *,
    draws: int,
    generator: torch.Generator | None = None,
) -> Outputs:
    """Return the outputs of a head on features (B, p), with all draws in one pass.

    The head must contain all the noise of its model.
    """
    with buffers_preserved(head):
        drawn = draw(head, rows=draws, generator=generator)
        with mean_weights(head):
            mean = values_of(head(features), (features,))
        with using(head, drawn):
            # Each observation is repeated for every draw: (B, K, p), where row k has draw k.
            rows = features.unsqueeze(1).expand(-1, draws, *features.shape[1:])
            noisy = _first(head(rows))
    return noisy.transpose(0, 1), mean


def effective_epsilon(noisy_q_KBA: Tensor, mean_q_BA: Tensor) -> Tensor:
    """Return the share of K draws whose greedy action differs from the mean weights', shape (B,).

    This is the measured counterpart of ε-greedy's ε: how often the noise changes the greedy action.
    """
    return (noisy_q_KBA.argmax(-1) != mean_q_BA.argmax(-1)).float().mean(0)


def action_deviation(noisy_KBA: Tensor, mean_BA: Tensor) -> float:
    """Return the root mean square deviation of actions (K, B, A) under K draws from the means'."""
    return float((noisy_KBA - mean_BA).float().square().mean().sqrt())


def check_values(noisy_q_KBA: Tensor, mean_q_BA: Tensor, least_draws: int) -> None:
    """Raise ValueError unless shapes agree, with enough draws, at least one row and two actions."""
    if noisy_q_KBA.ndim != 3 or noisy_q_KBA.shape[1:] != mean_q_BA.shape:
        raise ValueError(
            f"got Q of shape {tuple(noisy_q_KBA.shape)} under draws and {tuple(mean_q_BA.shape)} "
            "by the mean weights, expected (K, B, A) and (B, A)"
        )
    if noisy_q_KBA.shape[0] < least_draws or noisy_q_KBA.shape[-1] < 2 or not len(mean_q_BA):
        draws = f"{least_draws} draw{'s' * (least_draws > 1)}"
        raise ValueError(
            f"got Q of shape {tuple(noisy_q_KBA.shape)}, expected at least {draws}, 1 row and "
            "2 actions"
        )


def _first(output: Any) -> Tensor:
    first = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(first, Tensor) or first.ndim < 2:
        got = f"shape {tuple(first.shape)}" if isinstance(first, Tensor) else type(first).__name__
        raise ValueError(f"the model gave {got}, expected values (B, A), or a tuple that has them")
    return first


def values_of(output: Any, arguments: tuple[Any, ...], values: ToValues | None = None) -> Tensor:
    """Return the values (rows, A) in a model's output for its arguments.

    Raises ValueError where more than one dimension precedes the last, unless these are the leading
    dimensions of a sequence of observations: otherwise, (B, A, atoms) would pass for B·A rows.
    """
    found = _first(output if values is None else values(output))
    if found.ndim == 2:
        return found
    batch = arguments[0] if arguments else None
    leading = found.shape[:-1]
    # The rest of the batch's shape is one observation: a vector, or an image with channels.
    if (
        isinstance(batch, Tensor)
        and batch.shape[: len(leading)] == leading
        and batch.ndim - len(leading) in (1, 3)
    ):
        return found.flatten(0, -2)
    raise ValueError(
        f"the model gave shape {tuple(found.shape)}, expected values (B, A): a distribution's "
        "mean, say, made by a function from output to Q (values=)"
    )
