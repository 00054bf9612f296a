"""What is logged of a network's noise: its size, and what it does to the policy."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import torch
from torch import Tensor, nn

from ..diagnostics import behaviour, mean_sigma, snr
from ..diagnostics.behaviour import behaviour_of_head
from ..layers import noisy_layers
from ..networks import CoreState, QNetwork
from ..networks.actor_critic import ActorCriticNetwork

DRAWS = 8
"""Draws that a figure is measured by: with 8 environments a share of 64 choices."""
_FEW_DRAWS = 2
_COSTLY = 1_000_000

Arguments = ParamSpec("Arguments")


def _or_nothing(
    measure: Callable[Arguments, dict[str, float]],
) -> Callable[Arguments, dict[str, float]]:
    """Return no figures, and a warning, where measuring fails: it never ends a training."""

    @wraps(measure)
    def measured(*args: Arguments.args, **kwargs: Arguments.kwargs) -> dict[str, float]:
        try:
            return measure(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever it is, the agent can still learn
            said = " ".join(str(error).split())
            warnings.warn(f"no figures of the noise: {said}", RuntimeWarning, stacklevel=2)
            return {}

    return measured


@_or_nothing
def noise_figures(network: nn.Module) -> dict[str, float]:
    """Return SNR and mean |σ| per noisy layer, by the names that metrics have."""
    return {
        f"{figure}/{name.removeprefix('head.')}": value
        for figure, values in (("snr", snr(network)), ("sigma", mean_sigma(network)))
        for name, value in values.items()
    }


def _draws(network: nn.Module) -> int:
    """Return how many draws to measure by: fewer where one takes millions of normals.

    Independent noise on the Nature network does.
    """
    normals = sum(layer.noise_spec().size for layer in noisy_layers(network).values())
    return DRAWS if normals < _COSTLY else _FEW_DRAWS


@_or_nothing
@torch.no_grad()
def q_behaviour(
    network: QNetwork, observation: Tensor, generator: torch.Generator
) -> dict[str, float]:
    """Measure what the noise does to the greedy actions for observations (N, …).

    Returns effective ε, entropy, spread and gap of Q by the names that metrics have. A torso
    without noise runs once for all draws.
    """
    if noisy_layers(network.torso):
        return behaviour(network, observation, draws=_draws(network), generator=generator).figures()
    features = network.torso(observation)
    found = behaviour_of_head(network.head, features, draws=_draws(network), generator=generator)
    return found.figures()


@_or_nothing
@torch.no_grad()
def policy_behaviour(
    network: ActorCriticNetwork,
    observation: Tensor,
    first: Tensor,
    core: CoreState | None,
    generator: torch.Generator,
) -> dict[str, float]:
    """Measure the same of a policy's logits, for observations (N, …) and an LSTM's state.

    `first` (N,) is true where an episode begins.
    """
    # As a sequence of one step; the whole network runs for each draw.
    arguments = (observation.unsqueeze(0), first.unsqueeze(0), core)
    found = behaviour(network, arguments, draws=_draws(network), generator=generator)
    return found.figures()
