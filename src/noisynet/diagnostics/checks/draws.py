"""Checks of the draws: that they change, are not shared, and have the paper's distribution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

from ..findings import Check, Finding, counted, listed
from ..read_noise import Kind, Noise, NoiseByLayer, same_draws
from ..recognise import RecognisedLayer

ALIKE = 0.9
"""Correlation above which two sets of draws count as one. For 32 pairs of independent normals,
Fisher's z puts 0.9 at 7.9 standard deviations: one false alarm in 10¹⁴."""
_ENOUGH_PAIRS = 32
_SCORE = 6.0
_ENOUGH_SQUARES = 256


def kinds_of(
    layers: Mapping[str, RecognisedLayer], seen: Sequence[NoiseByLayer]
) -> dict[str, Kind]:
    """Return which kind of noise each layer draws; it is factorised if every ε_w has rank 1.

    The draws do not decide if ε_w has one row or one column, which fits both kinds, or if too few
    of them were seen. Such a layer is of the kind of the others if they agree, else "unknown".
    """
    kinds: dict[str, Kind] = {}
    for name, found in layers.items():
        noise = getattr(found.module, "noise", None) if found.is_ours else None
        if noise in ("factorised", "independent"):
            kinds[name] = "factorised" if noise == "factorised" else "independent"
            continue
        kinds[name] = _kind([noise for noise in _distinct(name, seen).values() if noise.is_on])
    # A layer of one output fits both kinds; it is taken to be of the same kind as the others.
    known: set[Kind] = {kind for kind in kinds.values() if kind != "unknown"}
    if len(known) == 1:
        return dict.fromkeys(kinds, known.pop())
    return kinds


def _distinct(layer: str, seen: Sequence[NoiseByLayer]) -> dict[int, Noise]:
    """Return a layer's distinct draws, {moment: noise}: a repeated draw tells nothing new."""
    distinct: dict[int, Noise] = {}
    for moment, noises in enumerate(seen):
        noise = noises.get(layer)
        if noise is not None and not any(noise.equals(other) for other in distinct.values()):
            distinct[moment] = noise
    return distinct


def _kind(noises: Sequence[Noise]) -> Kind:
    matrices = [_of_first_row(noise.weight) for noise in noises if noise.is_matrix]
    if not matrices or min(matrices[0].shape) < 2:
        return "unknown"
    values = [torch.linalg.svdvals(matrix.double()) for matrix in matrices]
    # The second singular value of a product is rounding error, in bfloat16 below 1 % of the first.
    if any(one[1] >= 0.02 * one[0] for one in values):
        return "independent"
    # An independent matrix of two rows and c columns passes for a product with a chance of
    # 0.04^(c - 1) (4 % for 2 × 2, 0.16 % for 2 × 3), and a larger one more rarely still. So there
    # must be enough draws to bring that chance down to 0.04⁶, 4 in 10⁹.
    rows, columns = matrices[0].shape
    return "factorised" if len(values) * (rows - 1) * (columns - 1) >= 6 else "unknown"


def _of_first_row(values: Tensor) -> Tensor:
    """Return the noise (q, columns) of a draw's first row, or of the one draw for all rows."""
    return values.flatten(0, -3)[0] if values.ndim > 2 else values


def redraws(
    layers: Mapping[str, RecognisedLayer], before: NoiseByLayer, after: NoiseByLayer, how: str
) -> Finding:
    """Check whether each layer's noise changes at a redraw; draws are equal with probability 0."""
    check = Check("redraw")
    common = before.keys() & after.keys()
    if not common:
        return check.skipped("the noise could not be seen in two draws")
    if stuck := same_draws(before, after):
        by_method = sorted({f"{layers[one].redraw}()" for one in stuck if layers[one].redraw})
        cure = (
            "draw in every forward, or give the layer a method that draws; or take "
            "noisynet.NoisyLinear and noisynet.attach(optimizer, model)"
        )
        if by_method:
            methods = ", ".join(by_method)
            cure = f"call {methods} of the layers themselves, after every optimizer step"
        return check.failed(f"the noise of {listed(stuck)} stays the same over {how}", cure)
    return check.passed(f"new noise in {counted(len(common), 'layer')} after {how}")


def own_draws(
    layers: Mapping[str, RecognisedLayer], kinds: Mapping[str, Kind], seen: Sequence[NoiseByLayer]
) -> Finding:
    """Check whether layers, and the parts of a layer's draw, share random numbers."""
    check = Check("own draws")
    streams: dict[str, tuple[list[int], Tensor]] = {}
    for one in layers:
        noises = {at: noise for at, noise in _distinct(one, seen).items() if noise.is_matrix}
        if len(noises) < 2:
            continue
        for part, values in _parts(list(noises.values()), kinds[one]).items():
            streams[f"{one} {part}"] = list(noises), values
    alike: list[tuple[str, str]] = []
    compared = 0
    for (first, a), (second, b) in combinations(streams.items(), 2):
        moments = [moment for moment in a[0] if moment in b[0]]
        length = min(a[1].shape[1], b[1].shape[1])
        if len(moments) < 2 or len(moments) * length < _ENOUGH_PAIRS:
            continue
        compared += 1
        pair = [
            values[[at.index(one) for one in moments], :length].flatten() for at, values in (a, b)
        ]
        if abs(float(torch.corrcoef(torch.stack(pair))[0, 1])) > ALIKE:
            alike.append((first, second))
    if alike:
        pairs = ", ".join(f"{first} and {second}" for first, second in alike[:3])
        return check.failed(
            f"{pairs or 'layers'} draw the same numbers: one random key serves both",
            "a key, or a part of a generator's stream, for every layer and each of its tensors",
        )
    if not compared:
        return check.skipped("too few different draws were seen to compare")
    return check.passed(f"{compared} pairs of layers or their parts, all different")


def _parts(noises: Sequence[Noise], kind: Kind) -> dict[str, Tensor]:
    """Return the first numbers that were drawn for each part of a draw, one row per draw.

    Factorised noise of a layer with a bias, whose noise is ε_j, is split into its factors. Of
    other noise, the parts are ε_b, and the edges of ε_w: whichever way it lies in memory, one of
    them is the beginning of its stream.
    """
    values = torch.stack([_of_first_row(noise.values) for noise in noises])
    has_bias = noises[0].has_bias
    bias, weight = values[..., 0], values[..., int(has_bias) :]
    if has_bias and kind == "factorised":
        largest = bias.abs().argmax(1)
        rows = weight[torch.arange(len(weight), device=weight.device), largest]
        return {"ε_j": bias, "ε_i": rows / bias.gather(1, largest.unsqueeze(1))}
    parts = {"ε_b": bias} if has_bias else {}
    # A row or a column of one number is the beginning of the other one.
    if weight.shape[2] > 1:
        parts["ε_w by row"] = weight[:, 0]
    if weight.shape[1] > 1 or not parts:
        parts["ε_w by column"] = weight[..., 0]
    return parts


def distribution(
    layers: Mapping[str, RecognisedLayer], kinds: Mapping[str, Kind], seen: Sequence[NoiseByLayer]
) -> Finding:
    """Compare the mean square of ε_b with the paper's: √(2/π) for f(ε_j), 1 for independent."""
    check = Check("distribution")
    odd: list[str] = []
    measured: dict[str, float] = {}
    expected = {"factorised": (math.sqrt(2 / math.pi), math.sqrt(1 - 2 / math.pi)),
                "independent": (1.0, math.sqrt(2.0))}  # fmt: skip
    for one in layers:
        biases = [noise.bias for noise in _distinct(one, seen).values()]
        squares = [bias.flatten().square() for bias in biases if bias is not None]
        if kinds[one] == "unknown" or len(squares) < 2:
            continue
        values = torch.cat(squares)
        if len(values) < _ENOUGH_SQUARES:
            continue
        mean, deviation = expected[kinds[one]]
        measured[one] = float(values.mean())
        # 6 standard deviations, of at least 256 squares: at most one false alarm in 10⁷ layers.
        if abs(measured[one] - mean) > _SCORE * deviation / math.sqrt(len(values)):
            odd.append(one)
    if odd:
        kind = kinds[odd[0]]
        return check.failed(
            f"{listed(odd)}: E ε² is {measured[odd[0]]:.3f}, expected {expected[kind][0]:.3f} for "
            f"{kind} noise",
            "factorised: f(x) = sgn(x) √|x| of standard normals; independent: the normals",
        )
    if not measured:
        return check.skipped(f"fewer than {_ENOUGH_SQUARES} different values of ε were seen")
    low, high = min(measured.values()), max(measured.values())
    described = " and ".join(sorted({kinds[one] for one in measured}))
    return check.passed(f"{described}: E ε² {low:.3f} to {high:.3f}")
