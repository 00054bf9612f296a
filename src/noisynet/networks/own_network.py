"""A user's own Q-network, made noisy and wrapped for the agents."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from ..layers import noisify, noisy_layers
from .noise_settings import NoiseSettings, make_torso_noisy
from .own_torso import OwnTorso
from .q_network import QNetwork

MakeNetwork = Callable[[tuple[int, ...], int], nn.Module]
"""Builds a Q-network, (B, *shape) to (B, actions), from an observation's shape and `actions`."""


class OwnQNetwork(QNetwork):
    """A user's own Q-network: all of it is the torso, and the head is the identity."""

    torso: OwnTorso

    def output_layers(self) -> list[nn.Module]:
        """Return the last noisy layer."""
        return [list(noisy_layers(self).values())[-1]]


def make_own_network(
    make: MakeNetwork,
    observation_shape: Sequence[int],
    actions: int,
    noise: NoiseSettings | None = None,
) -> OwnQNetwork:
    """Build a user's own Q-network and make it noisy, unless it has noisy layers already.

    `noise.where` is "last" for the last `nn.Linear`, "head" for all of them, and "all" for every
    layer that can be noisy. Raises ValueError unless the network returns one value for each action
    and has a layer to make noisy.
    """
    body = make(tuple(observation_shape), actions)
    torso = OwnTorso(body, observation_shape)
    if torso.features != actions:
        raise ValueError(
            f"{type(body).__name__}: got {torso.features} values, expected one for each of "
            f"{actions} actions"
        )
    if noise is not None and not noisy_layers(body):
        _make_noisy(torso, noise)
    return OwnQNetwork(torso, nn.Identity())


def _make_noisy(torso: OwnTorso, noise: NoiseSettings) -> None:
    if noise.where == "all":
        make_torso_noisy(torso, noise)
        return
    linear = [name for name, one in torso.named_modules() if isinstance(one, nn.Linear)]
    if not linear:
        raise ValueError(
            f"{type(torso.body).__name__}: has no nn.Linear to make noisy (with noise_in all every "
            "layer is that can be)"
        )
    chosen = linear[-1:] if noise.where == "last" else linear
    noisify(torso, lambda name, _: name in chosen, **noise.options)
