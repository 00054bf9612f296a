"""The doctor's look at the policy: how often the noise changes what the model would do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .behaviour import measure
from .findings import Finding
from .recognise import Found

_DRAWS = 16


@torch.no_grad()
def policy_noise(
    model: nn.Module, layers: Mapping[str, Found], batch: Any, redraw: Callable[[], Any]
) -> Finding:
    """Measure the effective ε of a model of any library on a batch, by redrawing its noise."""
    name = "policy"
    arguments = batch if isinstance(batch, tuple) else (batch,)
    quiet = {
        f"{one}.{sigma}".removeprefix("."): torch.zeros_like(tensor)
        for one, found in layers.items()
        for sigma, tensor in zip(found.sigmas, found.tensors(found.sigmas), strict=True)
    }
    mean = _values(functional_call(model, quiet, arguments))
    if mean is None:
        return Finding(name, "skipped", "the model's output is no batch of values per action")
    noisy: list[Tensor] = []
    for _ in range(_DRAWS):
        redraw()
        values = _values(model(*arguments))
        assert values is not None, "the same model gave values before"
        noisy.append(values)
    found = measure(torch.stack(noisy), mean)
    message = (
        f"effective ε {found.effective_epsilon:.3f}: that share of greedy actions is not the mean "
        f"weights' (spread of Q {found.q_spread:.3g}, gap of the best two {found.q_gap:.3g}, "
        f"{_DRAWS} draws of {len(mean)} observations)"
    )
    if found.effective_epsilon == 0:
        return Finding(
            name,
            "warn",
            f"{message}; the noise changes no action here",
            "look at more observations; if none changes, a larger σ0",
        )
    return Finding(name, "pass", message)


def _values(output: Any) -> Tensor | None:
    """Give (B, A) values of what a model returned: a tensor, or a tuple that begins with one."""
    first = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(first, Tensor) or first.ndim < 2 or first.shape[-1] < 2:
        return None
    return first.flatten(0, -2)
