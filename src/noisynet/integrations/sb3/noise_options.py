"""Options of the noise in a policy's network, and the layers that they make noisy."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from ...layers import NoiseName, noisify
from ...layers.restoring import buffers_preserved
from ..host import take

NoiseIn = Literal["all", "head", "last"]
_EXTRACTORS = ("features_extractor", "pi_features_extractor", "vf_features_extractor")
_LSTMS = ("lstm_actor", "lstm_critic")
_OUTPUTS = re.compile(r"action_net|value_net|mu|qf\d+")
_WIDTH_OF_THE_GAUSSIAN = "log_std"
"""SAC's layer for the width, which has no noise: the temperature controls its output."""


@dataclass(frozen=True, kw_only=True)
class NoiseOptions:
    """Options of the noise in a policy's network, by the names that the policies take."""

    noise: NoiseName
    """Kind of noise: "factorised" or "independent"."""
    sigma0: float | None
    """σ0 of the initial σ, as in `NoisyLinear`; None for the paper's value."""
    noise_in: str
    """Which layers are noisy. "all": every fully connected layer, those of the features extractor
    too, as in the paper (§3.1, §3.2), and RecurrentPPO's LSTMs. "head": those after the features
    extractor. "last": the output layers."""
    learned: bool
    """Whether σ is learned; otherwise a scale can adapt in its place (arXiv 1706.01905)."""

    def __post_init__(self) -> None:
        if self.noise_in not in get_args(NoiseIn):
            expected = ", ".join(map(repr, get_args(NoiseIn)))
            raise ValueError(f"noise_in: got {self.noise_in!r}, expected one of {expected}")


def add_noise(network: nn.Module, options: NoiseOptions, *, policy: str) -> None:
    """Make the chosen layers of a network noisy in place, keeping their means.

    Raises ValueError for a network without a layer to choose, for a lazy layer without a shape, and
    for an unknown kind or σ0.
    """
    lazy = [name for name, part in network.named_modules() if isinstance(part, nn.LazyLinear)]
    if lazy and options.noise_in == "all":
        raise ValueError(
            f"{policy}: noise_in='all': {lazy[0]!r} is a LazyLinear without a shape: run one "
            "forward when you build it, or pass noise_in='head'"
        )
    chosen = _chosen(network, options.noise_in)
    if not chosen:
        raise ValueError(
            f"{policy}: noise_in={options.noise_in!r} finds no nn.Linear in "
            f"{type(network).__name__}, expected at least one to make noisy"
        )
    noisify(
        network,
        lambda name, _: name in chosen,
        noise=options.noise,
        sigma0=options.sigma0,
        learned=options.learned,
    )


def _chosen(network: nn.Module, noise_in: str) -> Set[str]:
    every = [
        name
        for name, part in network.named_modules()
        if type_before_parametrizations(part) is (nn.LSTM if name in _LSTMS else nn.Linear)
        and name != _WIDTH_OF_THE_GAUSSIAN
    ]
    head = [name for name in every if not name.startswith(_EXTRACTORS)]
    if noise_in == "all":
        return set(every)
    if noise_in == "head":
        return set(head)
    last_of_parts = {name.partition(".")[0]: name for name in head}
    outputs = {name for part, name in last_of_parts.items() if _OUTPUTS.fullmatch(part)}
    return outputs or _read_by_no_other(network, head)


def _read_by_no_other(network: Any, names: Sequence[str]) -> set[str]:
    """Return the layers of a value network whose outputs no other one of them reads.

    A dueling network of the user's own has two; noise in its state value alone changes no action.
    """
    calls: dict[str, tuple[Tensor, Tensor]] = {}
    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda _, given, output, name=name: calls.update({name: (given[0], output)})
        )
        for name in names
    ]
    observation, _ = network.obs_to_tensor(copy.deepcopy(network.observation_space).sample())
    try:
        with torch.enable_grad(), buffers_preserved(network):
            network(take(observation, [0, 0]))
    finally:
        for handle in handles:
            handle.remove()
    outputs = [output for _, output in calls.values()]
    reached = [
        torch.autograd.grad(given.sum(), outputs, retain_graph=True, allow_unused=True)
        for given, _ in calls.values()
        if given.requires_grad
    ]
    return {
        name
        for name, *slopes in zip(calls, *reached, strict=True)
        if not any(slope is not None for slope in slopes)
    }
