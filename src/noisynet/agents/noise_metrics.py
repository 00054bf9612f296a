"""Logged figures of a network: its noise, the noise's effect on the policy, and its units."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..diagnostics import mean_sigma, snr, units
from ..diagnostics.behaviour import measure
from ..layers import noisy_layers
from ..layers.outputs import Outputs, outputs_of_head, outputs_of_model
from ..networks import CoreState, QNetwork
from ..networks.actor_critic import ActorCriticNetwork

DRAWS = 8
"""Draws per measurement: with 8 environments, effective ε is a share of 64 choices."""
_FEW_DRAWS = 2
_COSTLY = 1_000_000

Arguments = ParamSpec("Arguments")


Measure = Callable[Arguments, dict[str, float]]


def _or_nothing(what: str) -> Callable[[Measure[Arguments]], Measure[Arguments]]:
    """Return a decorator that turns a failed measurement into a warning and no figures.

    A failed measurement must never end the training.
    """

    def guarded(measure: Measure[Arguments]) -> Measure[Arguments]:
        @wraps(measure)
        def measured(*args: Arguments.args, **kwargs: Arguments.kwargs) -> dict[str, float]:
            try:
                return measure(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - whatever it is, the agent can still learn
                said = " ".join(str(error).split())
                warnings.warn(f"no figures of the {what}: {said}", RuntimeWarning, stacklevel=2)
                return {}

        return measured

    return guarded


@_or_nothing("noise")
def noise_figures(network: nn.Module) -> dict[str, float]:
    """Return the SNR and mean |σ| of each noisy layer, under their names in metrics.jsonl.

    Both include the scale, which is reported too if one has been set.
    """
    figures = {
        f"{figure}/{_short(name)}": value
        for figure, values in (("snr", snr(network)), ("sigma", mean_sigma(network)))
        for name, value in values.items()
    }
    states = [layer.noise_state for layer in noisy_layers(network).values()]
    if any(state.multiplier is not None for state in states):
        figures["noise/scale"] = states[0].scale
    return figures


@torch.no_grad()
def sigma_values(network: nn.Module) -> dict[str, npt.NDArray[np.float32]]:
    """Return the learned |σ| of every weight, without the scale, by the layer's name in metrics."""
    return {
        f"sigma/{_short(name)}": torch.cat(
            [sigma.detach().abs().float().flatten() for _, sigma in layer.noisy_weights()]
        )
        .cpu()
        .numpy()
        for name, layer in noisy_layers(network).items()
    }


def _draws(network: nn.Module, most: int) -> int:
    """Return how many draws to measure with: few if each takes a million normals or more.

    Independent noise on the Nature network takes that many.
    """
    normals = sum(layer.noise_spec().size for layer in noisy_layers(network).values())
    return most if normals < _COSTLY else _FEW_DRAWS


@_or_nothing("noise")
@torch.no_grad()
def q_behaviour(
    network: QNetwork, observation: Tensor, generator: torch.Generator
) -> dict[str, float]:
    """Measure what the noise does to the greedy actions for observations (N, …).

    Returns effective ε, entropy, spread and gap of Q, under their names in metrics.jsonl.
    """
    return measure(*q_outputs(network, observation, generator)).figures()


@torch.no_grad()
def q_outputs(
    network: QNetwork, observation: Tensor, generator: torch.Generator, *, draws: int = DRAWS
) -> Outputs:
    """Return Q for observations (N, …) under some draws and by the mean weights.

    A torso without noise runs once for all draws.
    """
    draws = _draws(network, draws)
    if noisy_layers(network.torso):
        return outputs_of_model(network, observation, draws=draws, generator=generator)
    features = network.torso(observation)
    return outputs_of_head(network.head, features, draws=draws, generator=generator)


@_or_nothing("noise")
@torch.no_grad()
def policy_behaviour(
    network: ActorCriticNetwork,
    observation: Tensor,
    first: Tensor,
    core: CoreState | None,
    generator: torch.Generator,
) -> dict[str, float]:
    """Measure what the noise does to a policy's most probable actions, as `q_behaviour` does.

    Takes observations (N, …), `first` (N,), which is true where an episode begins, and an LSTM's
    state.
    """
    return measure(*policy_outputs(network, observation, first, core, generator)).figures()


@torch.no_grad()
def policy_outputs(
    network: ActorCriticNetwork,
    observation: Tensor,
    first: Tensor,
    core: CoreState | None,
    generator: torch.Generator,
    *,
    draws: int = DRAWS,
) -> Outputs:
    """Return a policy's logits for observations (N, …), under some draws and by the mean weights.

    The whole network runs for each draw.
    """
    # The network takes sequences; this one has a single step.
    arguments = (observation.unsqueeze(0), first.unsqueeze(0), core)
    return outputs_of_model(network, arguments, draws=_draws(network, draws), generator=generator)


@_or_nothing("units")
def unit_figures(
    network: nn.Module, arguments: Any, generator: torch.Generator
) -> dict[str, float]:
    """Return the share of dormant units and the feature norm of each hidden layer.

    The names are those of metrics.jsonl. `arguments` is a batch of observations, or the tuple of
    arguments that the network takes.
    """
    figures: dict[str, float] = {}
    for name, one in units(network, arguments, generator=generator).items():
        figures[f"dormant/{_short(name)}"] = one.dormant
        figures[f"norm/{_short(name)}"] = one.norm
    return figures


def _short(layer: str) -> str:
    return layer.removeprefix("head.")
