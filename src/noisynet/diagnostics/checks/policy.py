"""The check of the policy: how often the noise changes the model's greedy action."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ...layers.outputs import values_of
from ..behaviour import measure
from ..findings import Check, Finding
from ..recognise import RecognisedLayer

_DRAWS = 16
_ENOUGH_OBSERVATIONS = 32
_BLIND_DEVIATION = 1e-4
"""Standard deviation of an action's Q over observations, relative to its largest |Q|, up to which
the observations count as not told apart. Dead Pong networks had 0 to 3·10⁻⁵, new ones 0.017 or more
(benchmarks/results/pong/units.json)."""


@torch.no_grad()
def policy_noise(
    model: nn.Module, layers: Mapping[str, RecognisedLayer], batch: Any, redraw: Callable[[], Any]
) -> Finding:
    """Measure the effective ε of a model of any library on a batch, by redrawing its noise."""
    check = Check("policy")
    arguments = batch if isinstance(batch, tuple) else (batch,)
    quiet = {
        f"{one}.{sigma}".removeprefix("."): torch.zeros_like(tensor)
        for one, found in layers.items()
        for sigma, tensor in zip(found.sigmas, found.tensors(found.sigmas), strict=True)
    }
    try:
        mean = values_of(functional_call(model, quiet, arguments), arguments)
    except ValueError as error:
        return check.skipped(str(error))
    if mean.shape[-1] < 2:
        return check.skipped(f"the model gave {mean.shape[-1]} value a row: no choice")
    if _is_blind(mean, arguments[0]):
        return check.failed(
            f"the mean weights' Q is the same for {len(mean)} observations that differ: nothing "
            "before the noise tells them apart, and no σ learns from them",
            "its units have died: train anew with a smaller step size or a larger ε of Adam, or go "
            "on with either and noisynet.revive: of a run `noisynet resume RUN --redo-every 1000 "
            "--adam-epsilon 1.5e-4`",
        )
    noisy: list[Tensor] = []
    for _ in range(_DRAWS):
        redraw()
        noisy.append(values_of(model(*arguments), arguments))
    found = measure(torch.stack(noisy), mean)
    message = (
        f"effective ε {found.effective_epsilon:.3f}: that share of greedy actions is not the mean "
        f"weights' (spread of Q {found.q_spread:.3g}, gap of the best two {found.q_gap:.3g}, "
        f"{_DRAWS} draws of {len(mean)} observations)"
    )
    if found.effective_epsilon == 0 and len(mean) < _ENOUGH_OBSERVATIONS:
        return check.skipped(
            f"{message}; the noise changes no action here, and fewer than "
            f"{_ENOUGH_OBSERVATIONS} observations are too few to judge by"
        )
    if found.effective_epsilon == 0:
        return check.warned(
            f"{message}; the noise changes no action here",
            "look at more observations; if none changes, a larger σ0",
        )
    return check.passed(message)


def _is_blind(mean_q_BA: Tensor, observations: Any) -> bool:
    """Return whether Q is the same for observations that differ; false if every Q is 0."""
    rows = len(mean_q_BA)
    if not isinstance(observations, Tensor) or rows < 2 or observations.numel() % rows:
        return False
    each = observations.reshape(rows, -1)
    largest_A = mean_q_BA.float().abs().amax(0)
    if not bool(largest_A.any()) or bool((each == each[0]).all()):
        return False
    return bool((mean_q_BA.float().std(0) <= _BLIND_DEVIATION * largest_A).all())
