"""Which layers of a Stable-Baselines3 network get noise, and how its optimizer takes σ."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar, get_args

from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
)
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from ..layers import noisify, sigma_parameters

NoiseIn = Literal["all", "head", "last"]
_EXTRACTORS = ("features_extractor", "pi_features_extractor", "vf_features_extractor")

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class NoiseOptions:
    """Say what noise a policy's network gets."""

    noise: str
    """Kind of noise: "factorised" or "independent"."""
    sigma0: float | None
    """Initial σ as `NoisyLinear` takes it; None is the paper's."""
    noise_in: str
    """Where: "all" is every fully connected layer, those of the features extractor too, as in the
    paper (§3.1, §3.2); "head" those after the features extractor; "last" the output layers."""

    def __post_init__(self) -> None:
        if self.noise_in not in get_args(NoiseIn):
            expected = ", ".join(map(repr, get_args(NoiseIn)))
            raise ValueError(f"noise_in: got {self.noise_in!r}, expected one of {expected}")

    def as_arguments(self) -> dict[str, Any]:
        """Give them by the names that the policies take."""
        return asdict(self)


def add_noise(network: Network, options: NoiseOptions, *, policy: str) -> Network:
    """Make the chosen `nn.Linear` of a network noisy in place, keeping its means.

    Raises ValueError for a network where there is none to make noisy, and for unknown options.
    """
    linears = {name for name, part in network.named_modules() if type(part) is nn.Linear}
    chosen = _chosen(network, linears, options.noise_in)
    if not chosen:
        raise ValueError(
            f"{policy}: noise_in={options.noise_in!r} finds no nn.Linear in "
            f"{type(network).__name__}, expected at least one to make noisy"
        )
    noisify(network, lambda name, _: name in chosen, noise=options.noise, sigma0=options.sigma0)
    return network


def _chosen(network: nn.Module, linears: Set[str], noise_in: str) -> Set[str]:
    head = {name for name in linears if not name.startswith(_EXTRACTORS)}
    if noise_in == "all":
        return linears
    if noise_in == "head":
        return head
    outputs = head & {"action_net", "value_net"}
    if outputs:
        return outputs
    in_order = [name for name, _ in network.named_modules() if name in head]
    return set(in_order[-1:])


def build_optimizer(
    network: nn.Module,
    optimizer_class: type[Optimizer],
    learning_rate: float,
    options: Mapping[str, Any],
) -> Optimizer:
    """Build what learns μ and σ, without weight decay for σ, which would switch exploration off.

    Adam is the fused one unless `options` say otherwise: σ doubles the number of parameters, and
    a loop over them costs more than their arithmetic in networks of the usual size.
    """
    chosen = dict(options)
    if optimizer_class in (Adam, AdamW) and not {"foreach", "fused"} & chosen.keys():
        chosen["fused"] = True
    build: Any = optimizer_class
    optimizer: Optimizer = build(network.parameters(), lr=learning_rate, **chosen)
    sigmas = {id(parameter) for parameter in sigma_parameters(network)}
    for group in list(optimizer.param_groups):
        if group.get("weight_decay"):
            spared: dict[str, Any] = {**group, "weight_decay": 0.0}
            spared["params"] = [one for one in group["params"] if id(one) in sigmas]
            group["params"] = [one for one in group["params"] if id(one) not in sigmas]
            optimizer.add_param_group(spared)
    return optimizer


def extractor_for(space: spaces.Space[Any], normalize_images: bool) -> type[BaseFeaturesExtractor]:
    """Choose the features extractor: combined for a dict, a CNN for an image, else flat."""
    if isinstance(space, spaces.Dict):
        return CombinedExtractor
    if is_image_space(space, normalized_image=not normalize_images):
        return NatureCNN
    return FlattenExtractor


def batch_size(observation: PyTorchObs) -> int:
    """Count the rows of an observation, a tensor or a dict of tensors."""
    tensor = next(iter(observation.values())) if isinstance(observation, dict) else observation
    return tensor.shape[0]
