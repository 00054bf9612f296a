"""Checks of the layers themselves: which are noisy, the size of σ, and registered noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...layers.initial import mean_bound
from ..findings import Check, Finding, counted, listed
from ..recognise import RecognisedLayer, tokens

COLLAPSED = 1000.0
"""SNR from which σ counts as collapsed: noise of a thousandth of the weights decides nothing."""
EXPLODED = 0.05
"""SNR below which σ counts as exploded. The paper's layers start at 1.2 (factorised), and above
0.5 for independent noise of up to 10,000 inputs."""


def layers_found(
    layers: Mapping[str, RecognisedLayer], without_shape: Sequence[str], model: str
) -> Finding:
    """Check whether a model has noisy layers, all with a shape, and report whose they are."""
    check = Check("layers")
    if without_shape:
        have = "has" if len(without_shape) == 1 else "have"
        return check.failed(
            f"{counted(len(without_shape), 'lazy layer')} {have} no shape yet: "
            f"{listed(without_shape)}; nothing was examined",
            "run one forward first",
        )
    if not layers:
        return check.failed(
            f"{model} has no noisy layer: nothing in it explores by noise, whatever its options",
            "noisynet.noisify(model), before the optimizer is built",
        )
    libraries = sorted({found.library or "unknown origin" for found in layers.values()})
    return check.passed(f"{len(layers)} noisy, of {', '.join(libraries)}")


def sigma_size(layers: Mapping[str, RecognisedLayer]) -> Finding:
    """Look for σ that collapsed, exploded, or is not finite, by the signal-to-noise ratio.

    σ is multiplied by the scale in force. A small scale is no fault if a control sets it: a
    schedule may end at 0. A low ratio is a failure if σ is large, and a warning if only μ is small,
    as in a last layer that starts near 0.
    """
    check = Check("sigma size")
    means = {one: _rms([mean for mean, _ in found.weights()]) for one, found in layers.items()}
    sigmas = {one: _rms([sigma for _, sigma in found.weights()]) for one, found in layers.items()}
    scales = {one: found.scale for one, found in layers.items()}
    ratios = {one: _ratio(means[one], scales[one] * sigmas[one]) for one in layers}
    if broken := [one for one, ratio in ratios.items() if math.isnan(ratio)]:
        return check.failed(
            f"{listed(broken)}: μ or σ is NaN or infinite",
            "go back to a checkpoint before it; clip gradients, lower the step size",
        )
    quiet = [one for one, ratio in ratios.items() if ratio > COLLAPSED]
    if collapsed := [one for one in quiet if _ratio(means[one], sigmas[one]) > COLLAPSED]:
        return check.failed(
            f"{listed(collapsed)}: σ collapsed, SNR {ratios[collapsed[0]]:.3g}: no noise left",
            "no weight decay on σ; a larger σ0; a small ε beside the noise",
        )
    if silenced := [one for one in quiet if not layers[one].is_controlled]:
        one = silenced[0]
        return check.failed(
            f"{listed(silenced)}: SNR {ratios[one]:.3g} with a scale of {scales[one]:.3g}: no "
            "noise left",
            "noisynet.control.scale(model, 1)",
        )
    loud = [one for one, ratio in ratios.items() if ratio < EXPLODED]
    usual = {one: mean_bound("factorised", layers[one].inputs) / math.sqrt(3) for one in loud}
    if exploded := [one for one in loud if usual[one] < EXPLODED * scales[one] * sigmas[one]]:
        return check.failed(
            f"{listed(exploded)}: σ exploded, SNR {ratios[exploded[0]]:.3g}: it drowns μ",
            "a smaller σ0 or step size; clip gradients",
        )
    if loud:
        return check.warned(
            f"{listed(loud)}: μ is small, SNR {ratios[loud[0]]:.3g}: the noise decides until μ has "
            "grown",
            "leave it in a layer that is to start near 0 (a gain of 0.01, say); else a smaller σ0",
        )
    low, high = min(ratios.values()), max(ratios.values())
    return check.passed(f"SNR {low:.3g} to {high:.3g}, RMS(μ)/RMS(σ) per layer")


def _rms(tensors: Sequence[Tensor]) -> float:
    values = torch.cat([one.detach().double().flatten() for one in tensors])
    return float(values.square().mean().sqrt())


def _ratio(mean: float, sigma: float) -> float:
    if not (math.isfinite(mean) and math.isfinite(sigma)):
        return math.nan
    return mean / sigma if sigma else math.inf


def registered_noise(layers: Mapping[str, RecognisedLayer]) -> Finding:
    """Look for ε in the state_dict or among the parameters."""
    check = Check("state_dict")
    among: dict[str, list[str]] = {"parameters": [], "state_dict": []}
    first: dict[str, str] = {}
    for one, found in layers.items():
        if found.is_ours:
            continue
        parameters = dict(found.module.named_parameters())
        for key in found.module.state_dict():
            if key in (*found.means, *found.sigmas) or not _says_noise(key):
                continue
            where = "parameters" if key in parameters else "state_dict"
            first.setdefault(where, key)
            among[where].append(one)
            break
    for where, blends in (
        ("parameters", "soft updates blend it, and a sync copies it"),
        ("state_dict", "a sync copies the online net's noise, and all actors get the same"),
    ):
        if among[where]:
            return check.failed(
                f"ε ({first[where]}) is in the {where} of {listed(among[where])}: {blends}",
                "register_buffer(…, persistent=False), and redraw after every sync",
            )
    return check.passed("no ε in it, nor among the parameters")


def _says_noise(key: str) -> bool:
    # "steps" contains "eps", but is not about noise.
    return any(one.startswith("eps") or "epsilon" in one or "noise" in one for one in tokens(key))
