"""A rollout that is being learned from: its targets, its minibatches, and how it is saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ..layers import Draw
from .revival import ROWS
from .rollout import Rollout
from .saved_arrays import to_array


@dataclass
class PreparedRollout:
    """A rollout that is being learned from, with its targets and the order of its minibatches."""

    rollout: Rollout
    drawn: Draw | None
    """The draw that acted; the last one, if it was redrawn within the rollout."""
    target_t: Tensor
    """(T, N)."""
    prepared: Tensor
    """(T + 1, N, …): the observations, prepared for the torso."""
    order: np.ndarray
    """(epochs, steps): indices of the steps that each epoch learns, shuffled."""
    minibatches: int
    """Minibatches per epoch: fewer than configured if fewer steps were taken."""
    longest: int
    """Steps in the largest minibatch of a rollout in which every step is learned."""
    done: int = 0
    """Minibatches learned so far."""

    @property
    def left(self) -> int:
        """The number of minibatches left to learn."""
        return len(self.order) * self.minibatches - self.done

    def observations(self) -> np.ndarray:
        """Return some observations of the rollout's steps, (at most 256, …), in random order."""
        observation = self.rollout.observation
        steps, environments = np.divmod(self.order[0, :ROWS], observation.shape[1])
        return observation[steps, environments]

    def minibatch(self) -> np.ndarray:
        """Return the indices of the next minibatch's steps; sizes differ by at most one."""
        return self._minibatch(self.done)

    def every_minibatch(self) -> Iterator[np.ndarray]:
        """Yield the step indices of every minibatch, including those already learned."""
        for number in range(len(self.order) * self.minibatches):
            yield self._minibatch(number)

    def _minibatch(self, number: int) -> np.ndarray:
        epoch, number = divmod(number, self.minibatches)
        size, larger = divmod(self.order.shape[1], self.minibatches)
        start = number * size + min(number, larger)
        return self.order[epoch, start : start + size + (number < larger)]

    # Saving

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that a checkpoint keeps: all but the prepared observations."""
        arrays = {
            f"rollout.{field.name}": getattr(self.rollout, field.name)
            for field in fields(self.rollout)
        }
        arrays["rollout.target_t"] = to_array(self.target_t)
        arrays["rollout.order"] = self.order
        for number, flat in enumerate(() if self.drawn is None else self.drawn.flats):
            arrays[f"rollout.noise.{number}"] = to_array(flat)
        return arrays

    def state(self) -> dict[str, int]:
        """Return the rest of what a checkpoint keeps, as plain JSON values."""
        return {
            "done": self.done,
            "minibatches": self.minibatches,
            "longest": self.longest,
            "draws": 0 if self.drawn is None else len(self.drawn.flats),
        }

    @classmethod
    def restored(
        cls,
        arrays: Mapping[str, np.ndarray],
        plain: Mapping[str, Any],
        *,
        prepare: Callable[[Rollout], Tensor],
        acting: Draw | None,
        minibatches: int,
        device: torch.device,
    ) -> Self:
        """Build a rollout from what `arrays` and `state` returned.

        `prepare` returns the prepared observations of a rollout; `acting` is a draw of the same
        network, and `minibatches` the configured number per epoch. Raises KeyError if something is
        missing.
        """
        rollout = Rollout(**{one.name: arrays[f"rollout.{one.name}"] for one in fields(Rollout)})
        drawn = None
        if plain["draws"]:
            assert acting is not None, "an agent with learned noise holds its acting draw"
            flats = [arrays[f"rollout.noise.{number}"] for number in range(plain["draws"])]
            drawn = replace(
                acting,
                flats=tuple(
                    torch.from_numpy(one).to(of)
                    for one, of in zip(flats, acting.flats, strict=True)
                ),
            )
        order, target_t = arrays["rollout.order"], arrays["rollout.target_t"]
        # Older checkpoints do not have these two.
        minibatches = plain.get("minibatches", min(minibatches, order.shape[1]))
        return cls(
            rollout,
            drawn,
            torch.from_numpy(target_t).to(device),
            prepare(rollout),
            order,
            minibatches,
            plain.get("longest", -(-target_t.size // minibatches)),
            int(plain["done"]),
        )


@dataclass(frozen=True)
class Minibatch:
    """Steps of a rollout, on the device, to learn from."""

    observation: Tensor
    """(B, …), prepared for the torso."""
    action: Tensor
    """(B,)."""
    target: Tensor
    """(B,)."""
    acted: Draw | None
    """The draw that acted in each step; None: learn under a new draw, or no layer is noisy."""
    weight: Tensor | None = None
    """(B,): each step's weight in the mean, with sum 1; None: equal weights."""

    def mean(self, values: Tensor) -> Tensor:
        """Return the weighted mean of one value per step, (B,)."""
        return values.mean() if self.weight is None else values @ self.weight
