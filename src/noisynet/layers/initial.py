"""The initial μ and σ of noisy layers, by the paper or library that they are from.

Every preset draws μ from U[−bound, +bound], for weight and bias alike: the bound is 1/√p for
factorised noise and √(3/p) for independent noise, p being the number of inputs. The presets differ
in σ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypedDict

from torch import Tensor, nn

from .noise import NoiseKind, NoiseName, NoiseSpec

InitName = Literal["paper", "book", "kaixhin", "torchrl", "tianshou", "pfrl", "dopamine"]


class NoiseOptions(TypedDict, total=False):
    """The options of the noise that every noisy layer has; `NoisyLinear` says what they mean."""

    noise: NoiseName
    sigma0: float | None
    init: InitName
    learned: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """The initial values of one paper or library: the defaults of its layer, not of its scripts.

    `sigma0` has an entry for each kind of noise that the source has. For independent noise, σ = σ0.
    For factorised noise, σ_w = σ0/√p, and `bias_over` says whether σ_b is σ0/√p ("inputs") or σ0/√q
    ("outputs").
    """

    source: str
    sigma0: Mapping[NoiseKind, float]
    bias_over: Literal["inputs", "outputs"] = "inputs"


PRESETS: dict[InitName, Preset] = {
    "paper": Preset(
        source="arXiv 1706.10295, §3.2",
        sigma0={"factorised": 0.5, "independent": 0.017},  # 0.5/√p for the bias too
    ),
    "book": Preset(
        source="PacktPublishing/Deep-Reinforcement-Learning-Hands-On-Second-Edition, "
        "Chapter08/lib/dqn_extra.py",
        # The factorised layer keeps nn.Linear's own μ, which are U[−1/√p, +1/√p].
        sigma0={"factorised": 0.4, "independent": 0.017},  # 0.4/√p for the bias too
    ),
    "kaixhin": Preset(
        source="Kaixhin/Rainbow, model.py",
        sigma0={"factorised": 0.5},  # main.py passes 0.1
        bias_over="outputs",  # σ_b = 0.5/√q
    ),
    "torchrl": Preset(
        source="pytorch/rl 0.14.1, torchrl/modules/models/exploration.py",
        sigma0={"factorised": 0.5},  # 0.1 up to release 0.11
        bias_over="outputs",  # σ_b = 0.5/√q
    ),
    "tianshou": Preset(
        source="thu-ml/tianshou 2.0.1, tianshou/utils/net/discrete.py",
        sigma0={"factorised": 0.5},  # 0.5/√p for the bias too; its Atari example passes 0.1
    ),
    "pfrl": Preset(
        source="pfnet/pfrl 0.4.0, pfrl/nn/noisy_linear.py",
        sigma0={"factorised": 0.4},  # its Rainbow example passes 0.5
        bias_over="outputs",  # σ_b = 0.4/√q
    ),
    "dopamine": Preset(
        source="google/dopamine, dopamine/jax/networks.py",
        sigma0={"factorised": 0.1},  # 0.1/√p for the bias too
    ),
}


def check_sigma0(sigma0: float | None) -> None:
    """Raise ValueError unless `sigma0` is None or a finite number of at least 0."""
    if sigma0 is None:
        return
    is_number = not isinstance(sigma0, bool | str) and hasattr(sigma0, "__float__")
    if not is_number or not math.isfinite(sigma0) or sigma0 < 0:
        raise ValueError(f"sigma0: got {sigma0!r}, expected a finite number of at least 0, or None")


def check_init(init: str, noise: NoiseKind | None = None) -> None:
    """Raise ValueError for an unknown preset, or for one without this kind of noise."""
    if not isinstance(init, str) or init not in PRESETS:
        raise ValueError(f"init: got {init!r}, expected one of {', '.join(sorted(PRESETS))}")
    if noise is not None and noise not in PRESETS[init].sigma0:
        fitting = sorted(name for name, preset in PRESETS.items() if noise in preset.sigma0)
        raise ValueError(
            f"init: got {init!r}, which has {', '.join(PRESETS[init].sigma0)} noise only, expected "
            f"one of {', '.join(fitting)} for {noise} noise"
        )


def mean_bound(noise: NoiseKind, inputs: int) -> float:
    """Return the bound of the initial μ: 1/√p (factorised) or √(3/p) (independent)."""
    return math.sqrt(1 / inputs) if noise == "factorised" else math.sqrt(3 / inputs)


def initial_sigmas(
    *, noise: NoiseKind, init: InitName, sigma0: float | None, inputs: int, outputs: int
) -> tuple[float, float]:
    """Return the initial σ of weights and of biases, for p inputs and q outputs.

    With `sigma0=None` σ0 is the preset's; another σ0 is scaled in the same way.
    """
    preset = PRESETS[init]
    value = preset.sigma0[noise] if sigma0 is None else sigma0
    if noise == "independent":
        return value, value
    bias_fan = inputs if preset.bias_over == "inputs" else outputs
    return value / math.sqrt(inputs), value / math.sqrt(bias_fan)


def initialise_means(weight: Tensor, bias: Tensor | None, spec: NoiseSpec, *, init: str) -> None:
    """Draw μ of weight and bias in place, uniform within ±1/√p (factorised) or ±√(3/p).

    p is the spec's number of inputs; weights may have any shape. Raises ValueError if the preset
    `init` lacks this kind of noise.
    """
    check_init(init, spec.kind)
    bound = mean_bound(spec.kind, spec.inputs)
    nn.init.uniform_(weight, -bound, bound)
    if bias is not None:
        nn.init.uniform_(bias, -bound, bound)


def initialise_sigmas(
    weight_sigma: Tensor,
    bias_sigma: Tensor | None,
    spec: NoiseSpec,
    *,
    init: InitName,
    sigma0: float | None,
) -> None:
    """Set σ of weight and bias in place to the constants of `initial_sigmas`.

    p and q are the spec's numbers of inputs and outputs, of one group. Raises ValueError if the
    preset `init` lacks this kind of noise.
    """
    check_init(init, spec.kind)
    of_weight, of_bias = initial_sigmas(
        noise=spec.kind,
        init=init,
        sigma0=sigma0,
        inputs=spec.inputs,
        outputs=spec.outputs // spec.groups,
    )
    nn.init.constant_(weight_sigma, of_weight)
    if bias_sigma is not None:
        nn.init.constant_(bias_sigma, of_bias)
