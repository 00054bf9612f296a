"""A batch of n-step transitions, the one type that replays return and updates learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ArrayT = TypeVar("ArrayT", bound="np.ndarray | Tensor", covariant=True)

FIELDS = ("observation_tm1", "action_tm1", "return_t", "discount_t", "observation_t", "weights")
"""The fields of a batch that updates learn from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(Generic[ArrayT]):
    """B transitions of m ≤ n steps, one per row, as numpy arrays or as torch tensors.

    A target reads `return_t + discount_t * q_t.max()`, with `q_t` of `observation_t`. A batch can
    be built by hand. Raises ValueError, with the field's name, for a shape that does not fit.
    """

    observation_tm1: ArrayT
    """(B, stack, *frame_shape), oldest frame first; (B, *frame_shape) when stack is 1."""
    action_tm1: ArrayT
    """(B,), int64."""
    return_t: ArrayT
    """(B,), float32: Σ γ^k r over the m steps."""
    discount_t: ArrayT
    """(B,), float32: γ^m, or 0 if the window was terminated."""
    observation_t: ArrayT
    """Like `observation_tm1`, m steps later; any observation where `discount_t` is 0."""
    weights: ArrayT | None = None
    """(B,), float32: importance weights, at most 1; None unless drawn by priority."""
    indices: npt.NDArray[np.int64] | None = None
    """(B,), numpy: the number of each row's first record, counted from the replay's first.

    Numbers are never reused. Record i is vector step i // N of environment i % N. None in a batch
    that was not sampled from a replay.
    """

    def __post_init__(self) -> None:
        rows = self.action_tm1.shape
        if len(rows) != 1:
            raise ValueError(f"action_tm1: got shape {tuple(rows)}, expected (B,)")
        for name in ("return_t", "discount_t", "weights", "indices"):
            value = getattr(self, name)
            if value is not None and value.shape != rows:
                raise ValueError(
                    f"{name}: got shape {tuple(value.shape)}, expected {tuple(rows)}, one number "
                    "for each action"
                )
        observations = self.observation_tm1.shape
        if observations[:1] != rows:
            raise ValueError(
                f"observation_tm1: got shape {tuple(observations)}, expected ({rows[0]}, …), one "
                "observation for each action"
            )
        if self.observation_t.shape != observations:
            raise ValueError(
                f"observation_t: got shape {tuple(self.observation_t.shape)}, expected "
                f"{tuple(observations)} as observation_tm1"
            )

    def __len__(self) -> int:
        """Return B."""
        return len(self.action_tm1)

    def to(self, device: torch.device | str) -> Batch[Tensor]:
        """Return the batch as tensors on a device, with memory shared where nothing has to move."""
        import torch

        def moved(value: Any) -> Tensor | None:
            tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            return None if tensor is None else tensor.to(device)

        values: dict[str, Any] = {name: moved(getattr(self, name)) for name in FIELDS}
        return Batch(**values, indices=self.indices)
