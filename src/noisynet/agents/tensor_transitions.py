"""What an update learns from, where it lies on the device already."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class TensorTransitions(Protocol):
    """A batch of n-step transitions as `Transitions`, but as tensors on the agent's device."""

    @property
    def observation_tm1(self) -> Tensor:
        """Give observations (B, …)."""
        ...

    @property
    def action_tm1(self) -> Tensor:
        """Give actions (B,), int64."""
        ...

    @property
    def return_t(self) -> Tensor:
        """Give discounted n-step rewards (B,), float32."""
        ...

    @property
    def discount_t(self) -> Tensor:
        """Give γ to the number of steps (B,), float32; 0 after termination."""
        ...

    @property
    def observation_t(self) -> Tensor:
        """Give the observations n steps on (B, …)."""
        ...

    @property
    def weights(self) -> Tensor | None:
        """Give importance weights (B,), float32; None where all are 1."""
        ...
