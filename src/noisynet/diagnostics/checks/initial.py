"""Checks of initial values: σ and μ of layers that have not been trained yet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations

from torch import Tensor

from ...layers import NoisyLayer
from ...layers.initial import PRESETS, initial_sigmas, mean_bound
from ..findings import Check, Finding, counted, listed
from ..read_noise import Kind
from ..recognise import RecognisedLayer


def _is_constant(tensor: Tensor) -> bool:
    """Return whether all values of a tensor are the same, as those of σ are before training."""
    return bool(tensor.min() == tensor.max())


def initial_sigma(layers: Mapping[str, RecognisedLayer], kinds: Mapping[str, Kind]) -> Finding:
    """Compare σ with the paper's initial value in layers that have not been trained yet.

    Any σ0 in the paper's form passes; σ_b over √q, which some libraries use, is a warning.
    Independent draws with a factorised layer's σ, a usual σ0 over √p, are a failure if layers of
    different p share the σ0, and otherwise a warning, as the value may have been chosen.
    """
    check = Check("initial sigma")
    untouched = {
        one: found
        for one, found in layers.items()
        if all(_is_constant(sigma) for sigma in found.tensors(found.sigmas))
    }
    if not untouched:
        return check.skipped("σ has been trained: its initial value is gone")
    scaled: dict[str, tuple[float, int]] = {}
    over_outputs: list[str] = []
    other: list[str] = []
    sizes: set[float] = set()
    presets: set[str] = set()
    for one, found in untouched.items():
        kind = kinds[one]
        weight, bias = _initial(found)
        p, q = found.inputs, found.outputs
        sigma0 = weight * math.sqrt(p)
        if kind == "independent":
            sizes.add(round(weight, 4))
            # σ0/√p with a usual σ0 is a factorised layer's σ, unless it happens to be 0.017.
            usual = any(_near(sigma0, value) for value in (0.5, 0.4, 0.1))
            if usual and not _near(weight, 0.017) and not _as_chosen(found, weight):
                scaled[one] = (sigma0, p)
            elif bias is not None and not _near(bias, weight):
                other.append(one)
            continue
        sizes.add(round(sigma0, 4))
        presets |= _presets(weight, bias, p, q)
        if bias is None or _near(bias, weight):
            continue
        (over_outputs if _near(bias * math.sqrt(q), sigma0) else other).append(one)
    if scaled:
        return _of_the_other_kind(check, scaled)
    if over_outputs:
        fitting = f" (as {', '.join(sorted(presets))})" if presets else ""
        return check.warned(
            f"{listed(over_outputs)}: the bias's σ is σ0/√q, not the paper's σ0/√p{fitting}",
            "fill σ_b with σ0/√p, p being the number of inputs",
        )
    if other:
        return check.warned(
            f"{listed(other)}: the bias's σ is neither the paper's nor a known library's",
            "fill it as σ of the weights: σ0/√p (factorised) or 0.017 (independent)",
        )
    values = ", ".join(f"{size:g}" for size in sorted(sizes))
    independent = all(kinds[one] == "independent" for one in untouched)
    form = "σ" if independent else "σ0/√p with σ0"
    paper = sizes <= {0.017, 0.5}
    return check.passed(f"{form} = {values}" + (", the paper's" if paper else ""))


def _as_chosen(found: RecognisedLayer, weight: float) -> bool:
    """Return whether a layer is noisynet's, and its arguments ask for this initial σ."""
    layer = found.module
    if not isinstance(layer, NoisyLayer):
        return False
    expected, _ = initial_sigmas(
        noise="independent",
        init=layer.init,
        sigma0=layer.sigma0,
        inputs=found.inputs,
        outputs=found.outputs,
    )
    return _near(weight, expected)


def _of_the_other_kind(check: Check, scaled: Mapping[str, tuple[float, int]]) -> Finding:
    """Return the finding on independent draws with a factorised layer's σ, {layer: (σ·√p, p)}."""
    alike = any(
        p != other_p and _near(sigma0, other)
        for (sigma0, p), (other, other_p) in combinations(scaled.values(), 2)
    )
    sigma0, p = next(iter(scaled.values()))
    message = (
        f"{listed(scaled)}: independent draws with a factorised layer's initial "
        f"σ = {sigma0 / math.sqrt(p):.4f}, where the paper has 0.017"
    )
    cure = "draw factorised noise, or start σ at 0.017: noisynet.NoisyLinear(…, noise=…)"
    if alike:
        return check.failed(message, cure)
    return check.warned(f"{message}; leave it if it was not meant as {sigma0:.2g}/√{p}", cure)


def _initial(found: RecognisedLayer) -> tuple[float, float | None]:
    """Return the constant σ of the weights and of the biases."""
    biases = found.biases()
    weight = float(found.weights()[0][1].detach().flatten()[0])
    return weight, float(biases[0][1].detach()[0]) if biases else None


def _presets(weight: float, bias: float | None, inputs: int, outputs: int) -> set[str]:
    fitting: set[str] = set()
    for name, preset in PRESETS.items():
        if "factorised" in preset.sigma0:
            of_weight, of_bias = initial_sigmas(
                noise="factorised", init=name, sigma0=None, inputs=inputs, outputs=outputs
            )
            if _near(weight, of_weight) and (bias is None or _near(bias, of_bias)):
                fitting.add(name)
    return fitting


def _near(value: float, expected: float) -> bool:
    # bfloat16 has 8 bits of precision.
    return math.isclose(value, expected, rel_tol=0.01)


def initial_mean(layers: Mapping[str, RecognisedLayer], kinds: Mapping[str, Kind]) -> Finding:
    """Compare μ with the paper's U[-1/√p, 1/√p] or U[-√(3/p), √(3/p)] while σ is untouched.

    A constant μ is a failure at any time, as every output of the layer is then alike; μ = 0, with
    which some last layers start, is a warning.
    """
    check = Check("initial mean")
    constant = [
        one
        for one, found in layers.items()
        if any(mean.numel() > 1 and _is_constant(mean) for mean, _ in found.weights())
    ]
    if constant:
        values = {float(layers[one].weights()[0][0].detach().flatten()[0]) for one in constant}
        value = max(values, key=abs)
        message = f"{listed(constant)}: every μ is {value:g}: all outputs of the layer are alike"
        cure = "draw μ from U[−1/√p, +1/√p] (factorised) or U[−√(3/p), +√(3/p)] (independent)"
        if value == 0:
            return check.warned(
                message, f"leave it in a last layer that is to start at 0; else {cure}"
            )
        return check.failed(message, cure)
    odd: list[str] = []
    compared = 0
    for one, found in layers.items():
        kind = kinds[one]
        untouched = all(_is_constant(sigma) for sigma in found.tensors(found.sigmas))
        if kind == "unknown" or not untouched:
            continue
        compared += 1
        mean = found.weights()[0][0].detach().float().flatten()
        bound = mean_bound(kind, found.inputs)
        # |μ| has mean bound/2 and deviation bound/√12; 6 deviations: one false alarm in 10⁹ layers.
        score = (float(mean.abs().mean()) / bound - 0.5) * math.sqrt(12 * mean.numel())
        if float(mean.abs().max()) > 1.01 * bound or abs(score) > 6:
            odd.append(one)
    if odd:
        return check.warned(
            f"{listed(odd)}: μ is not the paper's uniform draw while σ is still at its start: "
            "trained before the noise came, or initialised otherwise (orthogonal, say)",
            "leave it if it is meant so; layer.reset_parameters() draws the paper's",
        )
    if not compared:
        return check.skipped("σ has been trained: the initial μ is gone")
    return check.passed(f"the paper's uniform μ in {counted(compared, 'layer')}")
