"""Recurrent layers one step at a time, for sequences whose rows have separate weights.

The equations are those of PyTorch's documentation. A step takes the gates' pre-activations from the
input and from the state, both (…, gates · hidden), and the state: (h, c) for an LSTM, (h,) for the
others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .kernels.factorised import two_products
from .noise import FactorisedNoise, WeightNoise
from .weights import Weights

State = tuple[Tensor, ...]
Step = Callable[[Tensor, Tensor, State], State]


def lstm_step(of_input: Tensor, of_hidden: Tensor, state: State) -> State:
    """Return the next (h, c) of an LSTM."""
    i, f, g, o = (of_input + of_hidden).chunk(4, dim=-1)
    cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def gru_step(of_input: Tensor, of_hidden: Tensor, state: State) -> State:
    """Return the next (h,) of a GRU."""
    (hidden,) = state
    input_r, input_z, input_n = of_input.chunk(3, dim=-1)
    hidden_r, hidden_z, hidden_n = of_hidden.chunk(3, dim=-1)
    r = (input_r + hidden_r).sigmoid()
    z = (input_z + hidden_z).sigmoid()
    n = (input_n + r * hidden_n).tanh()
    return ((1 - z) * n + z * hidden,)


def tanh_step(of_input: Tensor, of_hidden: Tensor, _: State) -> State:
    """Return the next (h,) of an Elman network with tanh."""
    return ((of_input + of_hidden).tanh(),)


def relu_step(of_input: Tensor, of_hidden: Tensor, _: State) -> State:
    """Return the next (h,) of an Elman network with ReLU."""
    return ((of_input + of_hidden).relu(),)


def unrolled(
    step: Step,
    input: Tensor,
    state: State,
    weights: Sequence[Weights],
    noise: Sequence[WeightNoise],
    *,
    directions: int,
    dropout: float,
    active: Tensor | None = None,
) -> tuple[Tensor, State]:
    """Apply all layers and directions to sequences, step by step.

    Shapes: input (T, rows, p); each part of the state (layers · directions, rows, hidden). Returns
    the output (T, rows, directions · hidden) and the state after the last step. `weights` and
    `noise` are those of layer 0, of its reverse direction, of layer 1 and so on; for each of these,
    of the input, of the state and, if there is one, of the projection. Where `active` (T, rows, 1)
    is false, a sequence has ended and its state stays. `dropout` is the share of features to drop
    between layers.
    """
    runs = state[0].shape[0]
    per_run = len(weights) // runs
    finals: list[State] = []
    for layer in range(runs // directions):
        if layer and dropout:
            input = functional.dropout(input, dropout)
        outputs: list[Tensor] = []
        for direction in range(directions):
            run = layer * directions + direction
            own = slice(run * per_run, (run + 1) * per_run)
            linears = [_linear(*pair) for pair in zip(weights[own], noise[own], strict=True)]
            former = tuple(part[run] for part in state)
            output, final = _one_run(step, input, former, linears, active, reverse=direction == 1)
            outputs.append(output)
            finals.append(final)
        input = outputs[0] if directions == 1 else torch.cat(outputs, dim=-1)
    return input, tuple(torch.stack(parts) for parts in zip(*finals, strict=True))


Linear = Callable[[Tensor], Tensor]


def _one_run(
    step: Step,
    input: Tensor,
    state: State,
    linears: Sequence[Linear],
    active: Tensor | None,
    *,
    reverse: bool,
) -> tuple[Tensor, State]:
    """Apply one direction of one layer to (T, rows, p)."""
    of_input, of_hidden, *projection = linears
    of_inputs = of_input(input).unbind()
    outputs: list[Tensor] = []
    for t in reversed(range(len(of_inputs))) if reverse else range(len(of_inputs)):
        following = step(of_inputs[t], of_hidden(state[0]), state)
        if projection:
            following = (projection[0](following[0]), *following[1:])
        if active is not None:
            pairs = zip(following, state, strict=True)
            following = tuple(torch.where(active[t], new, old) for new, old in pairs)
        state = following
        outputs.append(state[0])
    if reverse:
        outputs.reverse()
    return torch.stack(outputs), state


def _linear(weights: Weights, noise: WeightNoise) -> Linear:
    """Return eq. 9 as a function of (…, rows, p); what all steps share is built only once."""
    if isinstance(noise, FactorisedNoise):
        return lambda x: two_products(x, weights, noise)
    weight, bias = weights.under(noise)
    if weight.ndim == 2:
        return lambda x: functional.linear(x, weight, bias)

    def by_row(x: Tensor) -> Tensor:
        # (rows, steps, p) @ (rows, p, q): no matrix is copied for the steps.
        steps = x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:]).transpose(0, 1)
        y = steps @ weight.mT
        if bias is not None:
            y = y + bias.unsqueeze(1).to(y.dtype)
        return y.transpose(0, 1).reshape(*x.shape[:-1], weight.shape[-2])

    return by_row
