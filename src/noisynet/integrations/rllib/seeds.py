"""Noise computed from seeds, so that a column of numbers takes it from actor to learner."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from ...layers import Draw, noisy_layers
from ...layers.draws import Slot
from ...layers.noise import LayerSpec
from ...layers.states import using_repeatedly

DrawContext = Callable[[], AbstractContextManager[None]]
"""Returns a context in which one draw is used; it can be called any number of times."""


def draw_of_seeds(module: nn.Module, seeds: Tensor) -> Draw:
    """Make the draw whose row i is computed from seeds[i], (B,) integers below 2³¹.

    The noise of a layer depends only on the seed and the layer's name, not on the device or
    the other layers of the module. So an actor without a value function and a learner that has one
    agree on the layers that both have. The numbers are drawn on the CPU.
    """
    distinct, rows = torch.unique(seeds, return_inverse=True)
    return _draw_of(module, distinct)[rows]


def _draw_of(module: nn.Module, seeds: Tensor) -> Draw:
    flats: list[Tensor] = []
    slots: list[Slot] = []
    for number, (name, layer) in enumerate(noisy_layers(module).items()):
        spec, reference = layer.noise_spec(), layer.noise_reference
        flat = torch.stack([_noise_of(spec, name, seed) for seed in seeds.tolist()])
        flats.append(flat.to(reference.device, reference.dtype))
        slots.append(Slot(name, spec, number, 0))
    return Draw(tuple(flats), tuple(slots))


def _noise_of(spec: LayerSpec, name: str, seed: int) -> Tensor:
    # The CPU's generator reads 32 bits of a seed; each layer has its own stream.
    generator = torch.Generator().manual_seed(seed ^ zlib.crc32(name.encode()))
    return spec.draw((), device=torch.device("cpu"), dtype=torch.float32, generator=generator)


class ActingNoise:
    """Seeds and draws for the environments of an actor, held until `redraw`."""

    def __init__(self) -> None:
        self._seeds: list[int] = []
        self._held: Draw | None = None
        self._in_force: tuple[Tensor, DrawContext] | None = None

    def redraw(self) -> None:
        """Discard seeds and draws, so that the next forward gets new noise."""
        self._seeds, self._held, self._in_force = [], None, None

    def forget(self) -> None:
        """Discard the draws but not the seeds, for a module that has been moved."""
        self._held = self._in_force = None

    def of_rows(self, module: nn.Module, rows: int) -> tuple[Tensor, DrawContext]:
        """Return seeds (rows,) and their context; row i keeps its noise if `rows` changes."""
        if self._in_force is not None and len(self._in_force[0]) == rows:
            return self._in_force
        held = self._held
        if held is None or held.rows is None or held.rows < rows:
            # Python's generator differs between actors: the host seeds each one's, or else the
            # system does. Torch's starts the same in every process.
            self._seeds += [random.getrandbits(31) for _ in range(rows - len(self._seeds))]
            held = self._held = draw_of_seeds(module, torch.tensor(self._seeds))
        drawn = held if held.rows == rows else held[:rows]
        self._in_force = torch.tensor(self._seeds[:rows]), using_repeatedly(module, drawn)
        return self._in_force

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_in_force": None}  # it refers to this module's layers


class LearningNoise:
    """The draws of a learner's batches, reused while the seeds stay the same, as in one rollout."""

    def __init__(self) -> None:
        self._distinct: Tensor | None = None
        self._of_distinct: Draw | None = None
        self._in_force: tuple[Tensor, DrawContext] | None = None

    def forget(self) -> None:
        """Discard the draws, for a module that has been moved."""
        self._distinct = self._of_distinct = self._in_force = None

    def under(self, module: nn.Module, seeds: Tensor) -> DrawContext:
        """Return a function that opens a context under the draws of `seeds`, (B,)."""
        # The loss asks twice for the same batch, for the policy and for the values.
        if self._in_force is None or self._in_force[0] is not seeds:
            self._in_force = seeds, using_repeatedly(module, self.of_seeds(module, seeds))
        return self._in_force[1]

    def of_seeds(self, module: nn.Module, seeds: Tensor) -> Draw:
        """Return the draw that `draw_of_seeds` returns, reusing the last one if seeds recur."""
        distinct, rows = torch.unique(seeds, return_inverse=True)
        if self._distinct is None or not torch.equal(self._distinct, distinct):
            self._distinct, self._of_distinct = distinct, _draw_of(module, distinct)
        assert self._of_distinct is not None, "made with _distinct"
        return self._of_distinct[rows]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_in_force": None}  # it refers to this module's layers
