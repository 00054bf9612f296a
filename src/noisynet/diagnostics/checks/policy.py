"""The check of the policy: how often, or how far, the noise changes the model's action."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ...layers import draw, mean_weights, noisy_layers, using
from ...layers.outputs import ToValues, action_deviation, values_of
from ...layers.restoring import cuda_devices
from ..behaviour import measure
from ..findings import Check, Finding, counted
from ..subject import Subject

_DRAWS = 16
_ENOUGH_OBSERVATIONS = 32
_DIFFERENT = 0.01
"""Standard deviation of a feature over observations, relative to the feature's largest value, from
which on the observations count as different."""
_STILL = 1e-4
"""Deviation of continuous actions, relative to the largest, up to which they count as unmoved."""
_BLIND_DEVIATION = 1e-4
"""Standard deviation of an action's Q over observations, relative to its largest |Q|, up to which
the observations count as not told apart. Dead Pong networks had 0 to 3·10⁻⁵, new ones 0.017 or more
(benchmarks/results/pong/units.json)."""


@torch.no_grad()
def policy_noise(subject: Subject, values: ToValues | None, *, continuous: bool) -> Finding:
    """Measure what redrawing the noise of a model of any library does to its actions on a batch.

    It is the effective ε or, for continuous actions, their deviation. Noisynet's layers have one
    draw at a time for this, since they may hold draws for another number of rows.
    """
    check, model, batch = Check("policy"), subject.model, subject.batch
    arguments = batch if isinstance(batch, tuple) else (batch,)
    quiet = {
        f"{one}.{sigma}".removeprefix("."): torch.zeros_like(tensor)
        for one, found in subject.layers.items()
        for sigma, tensor in zip(found.sigmas, found.tensors(found.sigmas), strict=True)
    }
    ours = noisy_layers(model)
    drawn = draw(model, rows=_DRAWS) if ours else None
    try:
        with _same_numbers(model), mean_weights(model):
            # Layers that share a σ name it more than once.
            output = functional_call(model, quiet, arguments, tie_weights=False)
            mean = values_of(output, arguments, values)
    except ValueError as error:
        return check.skipped(str(error))
    if mean.shape[-1] < 2 and not continuous:
        return check.skipped(
            f"the model gave {mean.shape[-1]} value a row: no choice; a continuous action takes "
            "continuous=True"
        )
    outputs_are = "the actions are" if continuous else "Q is"
    if bool(mean.isnan().any()):
        return check.failed(
            f"by the mean weights, {outputs_are} NaN",
            "go back to a checkpoint before it; clip gradients, lower the step size",
        )
    noisy: list[Tensor] = []
    for number in range(_DRAWS):
        if len(ours) < len(subject.layers):
            subject.redraw()
        own_draw = nullcontext() if drawn is None else using(model, drawn[number])
        with _same_numbers(model), own_draw:
            noisy.append(values_of(model(*arguments), arguments, values))
    # A last layer that starts at 0 tells observations apart by its noise alone.
    if _is_blind(torch.stack([mean, *noisy]), arguments[0]):
        return check.failed(
            f"{outputs_are} the same for {len(mean)} observations that differ: nothing before "
            "the noise tells them apart, and no σ learns from them",
            "its units have died: train anew with a smaller step size or a larger ε of Adam, or go "
            "on with either and noisynet.revive: of a run `noisynet resume RUN --redo-every 1000 "
            "--adam-epsilon 1.5e-4`",
        )
    verdict = _of_continuous_actions if continuous else _of_greedy_actions
    return verdict(check, torch.stack(noisy), mean)


def _of_greedy_actions(check: Check, noisy_q_KBA: Tensor, mean_q_BA: Tensor) -> Finding:
    found, rows = measure(noisy_q_KBA, mean_q_BA), len(mean_q_BA)
    message = (
        f"effective ε {found.effective_epsilon:.3f}: the share of greedy actions that the noise "
        f"changes (spread of Q {found.q_spread:.3g}, gap of the best two {found.q_gap:.3g}, "
        f"{_DRAWS} draws of {counted(rows, 'observation')})"
    )
    if found.effective_epsilon == 0 and rows < _ENOUGH_OBSERVATIONS:
        return check.skipped(
            f"{message}; the noise changes no action here, and fewer than "
            f"{_ENOUGH_OBSERVATIONS} observations are too few to judge by"
        )
    if found.effective_epsilon == 0:
        return check.warned(
            f"{message}; the noise changes no action here",
            "look at more observations; if none changes, a larger σ0; if the model returns "
            "continuous actions, continuous=True",
        )
    return check.passed(message)


def _of_continuous_actions(check: Check, noisy_KBA: Tensor, mean_BA: Tensor) -> Finding:
    found = action_deviation(noisy_KBA, mean_BA)
    message = (
        f"action deviation {found:.3g}: how far the noise moves an action, root mean square "
        f"({_DRAWS} draws of {counted(len(mean_BA), 'observation')})"
    )
    if found <= _STILL * float(mean_BA.abs().max()):
        return check.warned(
            f"{message}; the noise moves no action here",
            "a larger σ0; actions at the ends of a tanh need smaller weights before it",
        )
    return check.passed(message)


def _is_blind(q_KBA: Tensor, observations: Any) -> bool:
    """Return whether Q is the same for observations that differ; false if every Q is 0."""
    rows = q_KBA.shape[1]
    if not isinstance(observations, Tensor) or rows < 2 or observations.numel() % rows:
        return False
    each = observations.reshape(rows, -1).float()
    largest = each.abs().amax(0)
    # Beside much larger features, a network may not tell the values of a small one apart.
    if not ((each.std(0) > _DIFFERENT * largest) & (largest > _DIFFERENT**2 * largest.max())).any():
        return False
    q_KBA = q_KBA.float()
    largest_A = q_KBA.abs().amax((0, 1))
    return bool(largest_A.any()) and bool((q_KBA.std(1) <= _BLIND_DEVIATION * largest_A).all())


def _same_numbers(model: nn.Module) -> AbstractContextManager[Any]:
    """Begin each forward with the same random numbers, so that dropout does not count as noise.

    Layers of other libraries may draw their noise from these numbers, so there it counts.
    """
    if not noisy_layers(model):
        return nullcontext()
    return torch.random.fork_rng(devices=cuda_devices(model))
