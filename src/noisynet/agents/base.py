"""The base of all agents: a network with its noise and cures, and how they are saved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..layers import noisy_layers
from ..layers.outputs import Outputs
from ..networks import ActorCriticNetwork, QNetwork
from ..plasticity import ActivationsNotFinite
from ..runs.seeds import stream
from .exploration import LearnedNoise, Redraw
from .noise_control import Control, NoiseControl, Observations
from .noise_metrics import noise_figures
from .optimizers import LossNotFinite, is_finite
from .revival import Revival
from .saved_arrays import (
    check_noise_kind,
    generator_from_array,
    generator_to_array,
    held_draw_arrays,
    load_network,
    network_arrays,
    optimizer_arrays,
    restore_held_draw,
    restore_optimizer,
    restore_scale,
    scale_arrays,
)

NetworkT = TypeVar("NetworkT", QNetwork, ActorCriticNetwork)


class BaseAgent(ABC, Generic[NetworkT]):
    """A network that acts under noise, and learns.

    Each source of randomness has its own generator, seeded from `seed`. The arguments are those of
    the agents.
    """

    def __init__(
        self,
        network: NetworkT,
        optimizer: torch.optim.Optimizer,
        *,
        actions: int,
        environments: int,
        max_gradient_norm: float | None,
        redraw: Redraw = "update",
        draw_per_environment: bool,
        control: Control | None,
        precision: Literal["float32", "bfloat16"],
        revival: Revival | None,
        seed: int,
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self.actions = actions
        self.max_gradient_norm = max_gradient_norm
        self.precision = precision
        self.device = next(network.parameters()).device
        self._seed = seed
        self._acting = torch.Generator(self.device).manual_seed(stream(seed, "acting"))
        self._generators = {"acting": self._acting}
        """All of torch's generators, by their names in checkpoints."""
        self.noise = None
        if noisy_layers(network):
            self.noise = LearnedNoise(
                network,
                environments,
                self._acting,
                redraw=redraw,
                draw_per_environment=draw_per_environment,
            )
        self.control = None
        if control is not None:
            self.control = NoiseControl(
                control, list(self.networks.values()), self._outputs, seed=stream(seed, "control")
            )
        self.revival = revival
        self.revived = 0
        """Number of units reinitialised so far."""
        self.updates = 0

    @property
    def networks(self) -> dict[str, NetworkT]:
        """The networks by their names in checkpoints; the one that acts comes first."""
        return {"network": self.network}

    @abstractmethod
    def _outputs(self, seen: Observations, generator: torch.Generator) -> Outputs:
        """Return what the network gives for seen inputs, under draws and by the mean weights."""

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def is_finite(self) -> bool:
        """Return whether all parameters of the network are finite."""
        return is_finite(self.network)

    def _apply_cures(self, revival: Revival, arguments: Any, updates: int) -> None:
        """Apply the cures that are due after `updates`; see `Revival.apply`.

        Raises LossNotFinite if the network's activations are NaN or infinite.
        """
        try:
            found = revival.apply(
                self.network, self.optimizer, arguments, updates=updates, seed=self._seed
            )
        except ActivationsNotFinite as error:
            raise LossNotFinite(
                f"the network's activations became NaN or infinite at update {updates}"
            ) from error
        self.revived += found.count

    # Metrics

    def figures(self) -> dict[str, float]:
        """Return the SNR and mean |σ| of each noisy layer, under their names in metrics.jsonl.

        With cures, also return the number of units reinitialised so far.
        """
        revived = {} if self.revival is None else {"revived": float(self.revived)}
        return noise_figures(self.network) | revived

    def _generator_for_figures(self) -> torch.Generator:
        """Return a generator seeded by the number of updates: no other random numbers change."""
        seed = stream(self._seed, f"behaviour {self.updates}")
        return torch.Generator(self.device).manual_seed(seed)

    # Saving

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return the agent's state, as arrays and as plain JSON values."""
        arrays: dict[str, np.ndarray] = {}
        for name, network in self.networks.items():
            arrays.update(network_arrays(network, name))
        arrays.update(optimizer_arrays(self.optimizer, "optimizer"))
        for name, generator in self._generators.items():
            arrays[f"generator.{name}"] = generator_to_array(generator)
        if self.noise is not None:
            arrays.update(held_draw_arrays(self.network))
            arrays.update(scale_arrays(self.network))
        plain: dict[str, Any] = {"updates": self.updates}
        if self.control is not None:
            plain["control"] = self.control.state()
            arrays.update(self.control.arrays())
        if self.revival is not None:
            plain["revived"] = self.revived
        return arrays, plain

    def restore(self, arrays: Mapping[str, np.ndarray], plain: Mapping[str, Any]) -> None:
        """Restore what `state` returned. Raises KeyError or RuntimeError if it does not fit."""
        for name, network in self.networks.items():
            self._load(network, arrays, name)
        restore_optimizer(self.optimizer, arrays, "optimizer")
        for name, generator in self._generators.items():
            generator_from_array(generator, arrays[f"generator.{name}"])
        if self.noise is not None:
            restore_held_draw(self.network, arrays)
        self.updates = int(plain["updates"])
        self.revived = int(plain.get("revived", 0))
        if self.control is not None:
            self.control.restore(arrays, plain.get("control", {}))

    def load_acting(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Load only the acting network and its scale, which is all that evaluation needs.

        Raises RuntimeError if they do not fit.
        """
        self._load(self.network, arrays, next(iter(self.networks)))

    def _load(self, network: NetworkT, arrays: Mapping[str, np.ndarray], name: str) -> None:
        load_network(network, arrays, name)
        restore_scale(network, arrays)
        if self.noise is not None:
            check_noise_kind(self.network, arrays)
